//! `/notifications`: what people were told, what is held back, and what failed.

use std::sync::Arc;

use anomaly_engine::{NANOS, Timestamp};
use axum::extract::{Path, State};
use axum::response::Response;

use super::query::Params;
use super::{Api, json, now, schema};
use crate::notify::nanos;
use crate::problem::Problem;
use crate::store::Write;
use crate::store::notices::{Notification, Status};

/// The period of which messages are counted where there is no budget: a week.
const WEEK: i64 = 7 * 86_400 * NANOS;

/// Lists notifications, newest first, and how much of the budget is used.
#[utoipa::path(get, path = "/notifications", operation_id = "list_notifications", tag = "notifications",
    params(schema::Paging, ("status" = Option<String>, Query, description = "`pending`, `sent`, `held` or `failed`", example = "failed")),
    responses((status = 200, description = "A page; `budget.sent` counts the messages of its period (7 days without a budget)", body = schema::NotificationPage,
        example = json!({"notifications": [super::openapi::notification_example()], "next": null, "budget": {"limit": "2/week", "sent": 1, "held": 0}}))))]
pub(super) async fn list(State(api): State<Arc<Api>>, params: Params) -> Result<Response, Problem> {
    let limit = params.limit()?;
    let status = match params.text("status") {
        None => None,
        Some(name) => Some(
            Status::ALL
                .into_iter()
                .find(|status| status.as_str() == name)
                .ok_or_else(|| Problem::parameter("status", format_args!("must be pending, sent, held or failed, got {name:?}")))?,
        ),
    };
    let cursor = params.cursor().map(str::to_owned);
    let page = api.fresh_store(move |store| store.notifications(status, cursor.as_deref(), limit)).await?;
    let (items, next) = (json::array(page.items.iter().map(notification)), json::text_or_null(page.next.as_deref()));
    Ok(json::answer(format!("{{\"notifications\":{items},\"next\":{next},\"budget\":{}}}", budget(&api).await?)))
}

/// How much of the budget is used.
pub(super) async fn budget(api: &Api) -> Result<String, Problem> {
    let budget = api.app.config.notify.budget;
    let period = budget.map_or(WEEK, |budget| nanos(budget.period.duration()));
    let (sent, held) = api.fresh_store(move |store| Ok((store.counted(now().plus(-period))?.len(), store.held()?))).await?;
    let limit = json::text_or_null(budget.map(|budget| budget.to_string()).as_deref());
    Ok(format!("{{\"limit\":{limit},\"sent\":{sent},\"held\":{held}}}"))
}

/// Sends a notification again: the same bytes under the same id.
#[utoipa::path(post, path = "/notifications/{id}/resend", operation_id = "resend", tag = "notifications",
    params(("id" = String, Path, description = "The notification's `id`", example = "c0ffee00c0ffee00c0ffee00c0ffee00")),
    responses((status = 200, description = "The notification, pending again", body = schema::Notification, example = json!(super::openapi::notification_example()))))]
pub(super) async fn resend(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let (asked, again) = (id.clone(), id.clone());
    let resent = api.app.desk.write(Write::Resend { id: asked, at: now() }).await?;
    let unknown = || Problem::not_found(format_args!("no notification that was, or was to be, sent has the id {id}"));
    if !resent.is_yes() {
        return Err(unknown());
    }
    let found = api.fresh_store(move |store| store.notification(&again)).await?.ok_or_else(unknown)?;
    Ok(json::answer(notification(&found)))
}

pub(super) fn notification(notification: &Notification) -> String {
    let Notification { num: _, id, channel, kind, incidents, status, attempts, error, made, sent } = notification;
    let (id, incidents) = (json::text(id), json::array(incidents.iter().map(|id| json::text(id))));
    let sent = sent.as_ref().map_or_else(|| "null".to_owned(), Timestamp::to_string);
    format!(
        "{{\"id\":{id},\"channel\":\"{channel}\",\"kind\":\"{kind}\",\"incidents\":{incidents},\"status\":\"{}\",\"attempts\":{attempts},\
         \"last_error\":{},\"created_at\":{made},\"sent_at\":{sent}}}",
        status.as_str(),
        json::text_or_null(error.as_deref()),
    )
}
