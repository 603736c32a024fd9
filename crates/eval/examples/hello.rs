//! The least that a server on axum does: `cargo run --release --example hello -p anomaly-eval` answers `GET /` with `hello`.
//!
//! What a request costs here is what goal 1 compares a `POST /events/raw` with. It prints its address.
#![expect(clippy::print_stdout, reason = "it tells where it listens")]

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/", get(|| async { "hello" }))).await
}
