//! The HTTP API: one file a group of routes.
//!
//! | routes | file |
//! |---|---|
//! | `/events`, `/events/raw` | `events.rs`, bodies by `body.rs` |
//! | `/upload`, `/upload/bulk`, `/uploads/{id}` | `upload.rs` |
//! | `/anomalies`, `/anomalies/{id}`, `/anomalies/heat` | `anomalies.rs` |
//! | `/anomalies.csv` | `csv.rs` |
//! | `/incidents`, `/incidents/{id}`, what people say of one, `/feedback` | `incidents.rs` |
//! | `/silences` | `silences.rs` |
//! | `/notifications` | `notifications.rs` |
//! | `/series`, `/series/points`, `/series/explain` | `series.rs` |
//! | `/health`, `/livez`, `/readyz`, `/stats`, `/metrics` | `status.rs` |
//! | `/ws/anomalies` | `live.rs` |
//! | `/` and its files | `dashboard.rs` |
//! | `/docs`, `/openapi.json` | `pages.rs`, the document by `openapi.rs` and `schema.rs` |
//!
//! Every request passes `guard.rs`; every error is a [`Problem`].

mod anomalies;
mod body;
mod csv;
mod dashboard;
mod events;
mod guard;
mod incidents;
mod json;
mod live;
mod notifications;
mod openapi;
mod pages;
mod query;
pub mod schema;
mod series;
mod silences;
mod status;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::clock::now;
use crate::problem::Problem;
use crate::store::StoreError;
use crate::store::sqlite::StoreReader;
use body::Coding;

pub use openapi::openapi;

/// How many of the largest unpacked batches may be in memory at a time.
const BATCHES_IN_MEMORY: usize = 8;
/// How many WebSockets may ask the store at a time. A hundred that come or fall behind together must neither keep other questions
/// waiting nor have a thread each: what a thread has once used stays with it, and 16 of them took 90 MiB.
const FOLLOWERS_ASKING: usize = 2;
/// How long a batch waits for memory before it is told to come back.
const ROOM: Duration = Duration::from_secs(5);
/// What packed metrics unpack to, about: more is rare and fits the limit.
const USUAL_RATIO: usize = 16;

/// What the handlers share.
#[derive(Debug)]
struct Api {
    app: App,
    /// Memory for bodies of batches, in KiB.
    room: Arc<Semaphore>,
    room_kib: usize,
    /// Turns of WebSockets to ask the store.
    followers: Semaphore,
    counts: Mutex<Option<status::Counts>>,
}

impl Api {
    fn new(app: App) -> Self {
        let room_kib = BATCHES_IN_MEMORY * app.config.limits.max_batch_unpacked_bytes.div_ceil(1024);
        let (room, followers) = (Arc::new(Semaphore::new(room_kib)), Semaphore::new(FOLLOWERS_ASKING));
        Self { app, room, room_kib, followers, counts: Mutex::default() }
    }

    /// Asks the store, outside the threads that serve sockets.
    async fn store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.app.store.clone();
        Ok(tokio::task::spawn_blocking(move || ask(&store)).await.map_err(Problem::internal)??)
    }

    /// Waits until what was judged anywhere is known of series here.
    async fn fresh_series(&self) {
        if let Some(freshness) = &self.app.freshness {
            freshness.wait_for_series().await;
        }
    }

    /// As [`Api::store`], of all that was written anywhere before it was asked.
    async fn fresh_store<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        if let Some(freshness) = &self.app.freshness {
            freshness.wait().await;
        }
        self.store(ask).await
    }

    /// Asks the store for a WebSocket, when it is its turn.
    async fn store_in_turn<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let _turn = self.followers.acquire().await.map_err(Problem::internal)?;
        self.store(ask).await
    }

    /// Reserves memory for a batch that announces so many bytes.
    async fn room_for(&self, announced: Option<u64>, coding: Coding) -> Result<OwnedSemaphorePermit, Problem> {
        let config = &self.app.config;
        let packed = announced.map_or(config.limits.max_batch_bytes, |n| n.min(config.limits.max_batch_bytes as u64) as usize);
        let bytes = match coding {
            Coding::Identity => packed,
            Coding::Gzip | Coding::Zstd => packed + (packed * USUAL_RATIO).min(config.limits.max_batch_unpacked_bytes),
        };
        let room = Arc::clone(&self.room).acquire_many_owned(bytes.div_ceil(1024).min(self.room_kib) as u32);
        match tokio::time::timeout(ROOM, room).await {
            Ok(permit) => permit.map_err(Problem::internal),
            Err(_) => Err(Problem::unavailable("overloaded", "the memory for batches is taken").closing()),
        }
    }
}

/// The API over the stages behind it, under `BASE_PATH`.
pub fn router(app: App) -> Router {
    let base = app.config.base_path.clone();
    let api = Arc::new(Api::new(app));
    let (routes, _) = documented().split_for_parts();
    let routes = routes
        .route("/", get(dashboard::page))
        .route("/assets/{build}/{name}", get(dashboard::asset))
        .route("/docs", get(pages::to_docs))
        .route("/docs/", get(pages::docs))
        .route("/docs/{*file}", get(pages::docs_file))
        .route("/openapi.json", get(pages::document))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::clone(&api));
    // One service inside the guard, so that it sees each answer as it leaves: a layer on `routes` would sit inside the routes,
    // before their `Allow`.
    let routes = if base.is_empty() { Router::new().fallback_service(routes) } else { under(base, routes) };
    routes.layer(from_fn_with_state(api, guard::guard))
}

/// The routes that the OpenAPI document describes.
fn documented() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(events::raw))
        .routes(routes!(events::batch))
        .routes(routes!(upload::one))
        .routes(routes!(upload::bulk))
        .routes(routes!(upload::view))
        .routes(routes!(anomalies::list))
        .routes(routes!(csv::file))
        .routes(routes!(anomalies::heat))
        .routes(routes!(anomalies::one))
        .routes(routes!(incidents::list))
        .routes(routes!(incidents::one))
        .routes(routes!(incidents::capsule))
        .routes(routes!(incidents::acknowledge))
        .routes(routes!(incidents::resolve))
        .routes(routes!(incidents::feedback))
        .routes(routes!(incidents::by_rule))
        .routes(routes!(silences::list, silences::make))
        .routes(routes!(silences::end))
        .routes(routes!(notifications::list))
        .routes(routes!(notifications::resend))
        .routes(routes!(series::list, series::forget))
        .routes(routes!(series::points))
        .routes(routes!(series::explain))
        .routes(routes!(status::health))
        .routes(routes!(status::livez))
        .routes(routes!(status::readyz))
        .routes(routes!(status::stats))
        .routes(routes!(status::metrics))
        .routes(routes!(live::follow))
}

/// Serves `routes` under a prefix. The prefix alone leads to its page, so that relative links hold.
fn under(base: String, routes: Router) -> Router {
    Router::new().fallback(move |mut request: Request| async move {
        let path_and_query = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Some(rest) = path_and_query.strip_prefix(&base) else { return no_route(request.uri().clone()).await.into_response() };
        if rest.is_empty() || rest.starts_with('?') {
            return Redirect::temporary(&format!("{base}/{rest}")).into_response();
        }
        match rest.parse::<Uri>() {
            Ok(uri) if rest.starts_with('/') => *request.uri_mut() = uri,
            _ => return no_route(request.uri().clone()).await.into_response(),
        }
        match routes.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    })
}

async fn no_route(uri: Uri) -> Problem {
    Problem::not_found(format_args!("there is no route {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Response {
    let detail = format!("{} does not take {method}; the header Allow says what it takes", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response()
}

#[cfg(test)]
mod tests;
