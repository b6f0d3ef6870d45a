//! A web server whose requests are seen live.
//!
//! It prints its address and, where it runs under no other host, the socket for `ringtap stream --attach`. Each request is a
//! span, entered whenever its task runs; what it waits for lies between an `_exit` and the next `_enter`.

use axum::Router;
use axum::extract::{Path, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use std::time::Duration;
use tracing::field::Empty;
use tracing::{Instrument, Span, info, info_span};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let session = ringtap_tracing::init()?;
    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .route("/sleep/{ms}", get(sleep))
        .layer(middleware::from_fn(trace));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    if let Some(socket) = session.socket() {
        println!("ringtap stream --attach {}", socket.display());
    }
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    Ok(())
}

/// Makes a span of each request.
async fn trace(request: Request, next: Next) -> Response {
    let span = info_span!("request", method = %request.method(), path = request.uri().path(), status = Empty);
    async {
        let response = next.run(request).await;
        Span::current().record("status", response.status().as_u16());
        response
    }
    .instrument(span)
    .await
}

async fn sleep(Path(ms): Path<u64>) -> String {
    info!(ms, "going to sleep");
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("slept {ms} ms\n")
}
