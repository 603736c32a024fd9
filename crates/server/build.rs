//! Embeds the dashboard: our own files of `web/`, and uPlot, which is not kept in this repository.
//!
//! uPlot's two files are taken from `$ANOMALY_WEB_VENDOR`, else from `web/node_modules`, else npm brings them into `OUT_DIR`.
//! Without npm the build succeeds with a warning, and the page says that its charts are missing; with `CI=true` it fails.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use xxhash_rust::xxh3::Xxh3;

/// Of uPlot, as it is published.
const VENDOR: [&str; 2] = ["uPlot.iife.min.js", "uPlot.min.css"];
/// Stands in the page for the name of the folder that its files are served from.
const BUILD: &str = "BUILD";

/// Names and contents.
type Files = Vec<(String, Vec<u8>)>;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=web");
    println!("cargo::rerun-if-env-changed=ANOMALY_WEB_VENDOR");
    println!("cargo::rerun-if-env-changed=CI");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut files = own(Path::new("web"))?;
    files.extend(vendor(&out)?);
    files.sort();

    let mut hash = Xxh3::new();
    for (name, bytes) in &files {
        hash.update(name.as_bytes());
        hash.update(bytes);
    }
    let build = format!("{:016x}", hash.digest());
    let folder = out.join("web");
    fs::create_dir_all(&folder)?;
    let mut list = format!("pub(super) const BUILD: &str = {build:?};\npub(super) static FILES: &[File] = &[\n");
    for (name, bytes) in files {
        let bytes = if name == "index.html" { String::from_utf8(bytes)?.replace(BUILD, &build).into_bytes() } else { bytes };
        let mut packed = GzEncoder::new(Vec::new(), Compression::best());
        packed.write_all(&bytes)?;
        let (plain, gzip) = (folder.join(&name), folder.join(format!("{name}.gz")));
        fs::write(&plain, bytes)?;
        fs::write(&gzip, packed.finish()?)?;
        let kind = content_type(&name).ok_or_else(|| format!("web/{name}: no content type is known for it"))?;
        writeln!(
            list,
            "    File {{ name: {name:?}, content_type: {kind:?}, plain: include_bytes!({plain:?}), gzip: include_bytes!({gzip:?}) }},"
        )?;
    }
    list.push_str("];\n");
    fs::write(out.join("web.rs"), list)?;
    Ok(())
}

fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

/// Our own files: everything of the folder but npm's.
fn own(web: &Path) -> Result<Files, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(web)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !name.starts_with('.') && !name.starts_with("package") {
            let bytes = slim(&fs::read_to_string(&path)?).map_err(|error| format!("web/{name}: {error}"))?;
            files.push((name, bytes.into_bytes()));
        }
    }
    Ok(files)
}

/// A text without its indentation and its lines of comment, a fifth of its size. That needs no parser while no line of a
/// text inside is one of ours, so templates over several lines are refused.
fn slim(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        let comment = line.starts_with("//") || (line.starts_with("/*") && line.ends_with("*/") && line.matches("*/").count() == 1);
        if line.matches('`').count() % 2 == 1 && !comment {
            return Err(format!("line {number}: a template over several lines"));
        }
        if !line.is_empty() && !comment {
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

/// uPlot's files; empty ones where they cannot be had.
fn vendor(out: &Path) -> Result<Files, Box<dyn Error>> {
    if let Some(folder) = std::env::var_os("ANOMALY_WEB_VENDOR") {
        // Whoever names a folder means it.
        let folder = PathBuf::from(folder);
        return read_vendor(&folder).map_err(|error| format!("ANOMALY_WEB_VENDOR={}: {error}", folder.display()).into());
    }
    if let Ok(files) = read_vendor(Path::new("web/node_modules/uplot/dist")) {
        return Ok(files);
    }
    let reason = match install(out) {
        Ok(()) => return read_vendor(&out.join("npm/node_modules/uplot/dist")),
        Err(reason) => reason.to_string().trim().replace('\n', " "),
    };
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        return Err(format!("the dashboard's charts need uPlot, and npm did not bring it: {reason}").into());
    }
    println!("cargo::warning=the dashboard is built without charts, since npm did not bring uPlot: {reason}");
    println!(
        "cargo::warning=with npm installed, `touch crates/server/build.rs` and build again; or name a folder with {} in ANOMALY_WEB_VENDOR",
        VENDOR.join(" and ")
    );
    Ok(VENDOR.map(|name| (name.to_owned(), Vec::new())).into())
}

fn read_vendor(folder: &Path) -> Result<Files, Box<dyn Error>> {
    let read = |name: &str| match fs::read(folder.join(name)) {
        Ok(bytes) if !bytes.is_empty() => Ok((name.to_owned(), bytes)),
        Ok(_) => Err(format!("{name} is empty").into()),
        Err(error) => Err(format!("{name}: {error}").into()),
    };
    VENDOR.into_iter().map(read).collect()
}

/// Lets npm install what `web/package-lock.json` names, beside the build's other products.
fn install(out: &Path) -> Result<(), Box<dyn Error>> {
    let folder = out.join("npm");
    fs::create_dir_all(&folder)?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(Path::new("web").join(name), folder.join(name))?;
    }
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let arguments = ["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"];
    let done = Command::new(npm).args(arguments).current_dir(&folder).output().map_err(|error| format!("npm cannot be run: {error}"))?;
    if done.status.success() { Ok(()) } else { Err(format!("npm ci: {}", String::from_utf8_lossy(&done.stderr)).into()) }
}
