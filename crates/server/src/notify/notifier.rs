//! The notifier: reads what the store has committed, and decides who hears of it.
//!
//! ```text
//! anomalies, transitions ─► told, waiting ─► (NOTIFY_GROUP_WAIT_SECONDS) ─► decision ─► notifications ─► deliver.rs
//!                             gather           silences, routes, budget        stored before it is sent
//! ```
//! All of its state is in the store, and each step is one transaction: a process that dies in between goes on where it was. A
//! decision holds the very bytes that are sent, under an id made of what it is about, so a receiver that sees one twice can tell.

use std::sync::Arc;
use std::time::Duration;

use anomaly_engine::{SeriesKey, Timestamp};
use tokio::sync::Notify;
use tracing::warn;

use super::channel::{Channel, Channels, names};
use super::group::{Group, follow_up, gathered_anew, goes_on, has, of_lead};
use super::limits::{Limits, counts};
use super::message::{Kind, Message};
use super::{fact, message_id, nanos, notification_id};
use crate::clock;
use crate::config::Config;
use crate::desk::{Desk, DeskError};
use crate::points::PointsHandle;
use crate::silence::silencing;
use crate::store::notices::{Candidate, Decision, Gathering, HeldBack, Known, Looks, NewNotification, Phase};
use crate::store::sqlite::StoreReader;
use crate::store::{State, StoreError, Write};

/// How long to wait after a fault of the store.
const FAULT_PAUSE: Duration = Duration::from_secs(5);
/// The shortest and the longest sleep while something is due: the wall clock may be set.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// A digest of old data waits until none has come for so long,
const OLD_QUIET: Duration = Duration::from_secs(60);
/// but not longer than this.
const OLD_LONGEST: Duration = Duration::from_secs(3600);
/// The wall clock has been set back where it is so far behind what it was.
const SET_BACK: Duration = Duration::from_secs(10);
/// An incident that has so many more anomalies than when it was told is a storm, which a digest accounts for.
const STORM: u64 = 10;
/// How long to wait after something has happened before it is looked at: more may come, and looking writes.
const GATHER_PAUSE: Duration = Duration::from_millis(100);
/// Samples of a chart before and behind the strongest anomaly.
const CHART: (usize, usize) = (120, 30);

/// The notifier. One a store.
#[derive(Debug)]
pub struct Notifier {
    /// What is configured.
    pub config: Arc<Config>,
    /// Where people reach the dashboard, without a slash at the end.
    pub base_url: String,
    /// How messages are written.
    pub channels: Arc<Channels>,
    /// What was committed.
    pub store: StoreReader,
    /// Where decisions are written.
    pub desk: Desk,
    /// Samples for charts.
    pub points: PointsHandle,
    /// Told when incidents may have changed.
    pub news: Arc<Notify>,
    /// When it looked last.
    pub last: Timestamp,
}

/// Why a step was not made; it is made again.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a thread that asked the store ended: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl Notifier {
    /// Decides until it is dropped.
    pub async fn run(mut self) {
        loop {
            let next = match self.turn().await {
                Ok(next) => next,
                Err(Fault::Desk(DeskError::Closing)) => return,
                Err(fault) => {
                    warn!("alerts wait, it is tried again in {} s: {fault}", FAULT_PAUSE.as_secs());
                    Some(clock::now().plus(nanos(FAULT_PAUSE)))
                }
            };
            let left = next.map(|at| Duration::from_nanos(at.since(clock::now()).max(0) as u64).clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
            tokio::select! {
                () = self.news.notified() => tokio::time::sleep(GATHER_PAUSE).await,
                () = tokio::time::sleep(left.unwrap_or_default()), if left.is_some() => {}
            }
        }
    }

    /// Does what can be done now; returns when to look again, if nothing happens.
    async fn turn(&mut self) -> Result<Option<Timestamp>, Fault> {
        let now = clock::now();
        let back = self.last.since(now);
        if back > nanos(SET_BACK) {
            // What waits until a time that is an hour further away now would be told an hour late.
            self.desk.write(Write::SetBack { nanos: back }).await?;
        }
        self.last = now;
        while self.ask(StoreReader::has_news).await? {
            let notify = &self.config.notify;
            let gathering = Gathering { wait: nanos(notify.group_wait), max_age: notify.max_age, routing: notify.routing() };
            self.desk.write(Write::Gather { gathering, at: clock::now() }).await?;
        }
        while self.decide(clock::now()).await? {}
        let digest = self.digests(clock::now()).await?;
        let due = self.ask(StoreReader::next_due).await?;
        Ok([digest, due].into_iter().flatten().min())
    }

    /// Decides about what is due; whether there was anything.
    async fn decide(&self, now: Timestamp) -> Result<bool, Fault> {
        let gathered = self.ask(move |store| store.gathered(now)).await?;
        let due = self.ask(move |store| store.due(now)).await?;
        if gathered.is_empty() && due.is_empty() {
            return Ok(false);
        }
        // What is decided without a message is stored last, with the entries that are done: until then they wait, and are decided
        // the same way again.
        let mut rest = Decision { done: gathered.iter().map(|one| (one.num, one.kind)).collect(), ..Decision::default() };
        let mut groups: Vec<Group> = Vec::new();
        let (opened, changed): (Vec<_>, Vec<_>) = gathered.into_iter().partition(|one| one.kind == Kind::Opened);
        let (silent, known): (Vec<_>, Vec<_>) = due.into_iter().partition(|(phase, _)| *phase == Phase::Silent);
        let silences = self.ask(move |store| store.silences(now)).await?;
        let silent = silent.into_iter().map(|(_, one)| (one, true));
        let opened = opened.into_iter().map(|one| (one, false)).chain(silent).collect();
        groups.extend(gathered_anew(&self.config.notify, opened, &silences, &mut rest, now));
        for one in changed {
            let silence = if one.incident.state == State::Silenced { silencing(&silences, one.subject(), now) } else { None };
            if let Some(silence) = silence.filter(|_| one.kind != Kind::Resolved) {
                // What got worse is told when the silence ends, if it is still so.
                rest.done.retain(|done| *done != (one.num, one.kind));
                rest.later.push((one.num, one.kind, silence.to));
                continue;
            }
            if !groups.iter().any(|group| group.is_about(one.kind, &one.lead)) {
                let members = self.led_by(&one, one.kind, now).await?;
                groups.extend(follow_up(&self.config.notify, &one, members));
            }
        }
        for (_, one) in known {
            let repeat = self.config.notify.repeat;
            if one.looks != Looks::Done {
                self.look_at_growth(&one, now).await?;
            } else if !goes_on(&one) {
                // Looked at again where it may go on by then.
                let again = repeat.filter(|_| one.incident.state != State::Resolved);
                rest.known.push(Known { due: again.map(|repeat| now.plus(nanos(repeat))), ..Known::as_it_was(&one) });
            } else if !groups.iter().any(|group| group.is_about(Kind::Repeated, &one.lead)) {
                let mut members = self.led_by(&one, Kind::Repeated, now).await?;
                members.retain(goes_on);
                match of_lead(&self.config.notify, Kind::Repeated, members) {
                    Some(group) => groups.push(group),
                    None => rest.known.push(Known { due: None, ..Known::as_it_was(&one) }),
                }
            }
        }
        for group in groups {
            self.send(group, now).await?;
        }
        self.store(rest).await?;
        Ok(true)
    }

    /// Writes the message of a group for each channel, or holds it back there, and stores that.
    async fn send(&self, group: Group, now: Timestamp) -> Result<(), Fault> {
        let notify = &self.config.notify;
        let rate = notify.email_rate_limit;
        let limits = self.limits(now).await?;
        let Group { kind, channels, members } = group;
        let first = &members[0];
        let mut decision = Decision::about(&members);
        let mut told = Vec::new();
        let mut message = None;
        for channel in channels.into_iter().filter(|&channel| channel.takes(kind) && self.channels.is_configured(channel)) {
            let in_budget = counts(kind, channel);
            if let Some(why) = limits.exceeded(channel).filter(|_| in_budget) {
                // A rate only delays: the digest goes to the same people.
                if why.is_rate() {
                    told.push(channel);
                }
                warn!(channel = channel.name(), series = first.incident.name, "alert held back: {why}");
                decision.rows.push(held(first, "held", kind, channel, why.to_string()));
                continue;
            }
            told.push(channel);
            if message.is_none() {
                message = Some(self.message(kind, &members, now).await);
            }
            let id = notification_id(&first.incident.id, kind.as_str(), first.times, channel);
            let body = message.as_ref().map(|message| self.channels.render(channel, message, &id)).unwrap_or_default();
            let message = message_id(&first.incident.id, kind.as_str(), first.times);
            decision.rows.push(NewNotification { id, message, channel: channel.name().into(), kind, held: None, counts: in_budget, body });
        }
        for member in &members {
            decision.done.push((member.num, kind));
            let known = Known { phase: Phase::Told, times: member.times + 1, ..Known::as_it_was(member) };
            if matches!(kind, Kind::Resolved | Kind::Acknowledged) {
                decision.known.push(known);
                continue;
            }
            let on: Vec<_> = Channel::ALL.into_iter().filter(|channel| told.contains(channel) || has(member, *channel)).collect();
            // Whether it has grown is asked when the next email may be sent, and told only there.
            let looks = kind == Kind::Opened && told.contains(&Channel::Email) && !rate.is_zero();
            let pause = if looks { Some(rate) } else { notify.repeat };
            decision.known.push(Known {
                at: now,
                due: pause.map(|pause| now.plus(nanos(pause))),
                lead: if kind == Kind::Opened { first.incident.id.clone() } else { member.lead.clone() },
                said: (kind == Kind::Opened).then_some(member.incident.critical),
                count: member.incident.count,
                looks: if looks { Looks::First } else { Looks::Done },
                seen: member.incident.count,
                channels: names(&on),
                ..known
            });
        }
        self.store(decision).await
    }

    /// An incident that became a storm after it was told is accounted for in a digest: when the next email may be sent, and once
    /// more when the storm is over.
    async fn look_at_growth(&self, one: &Candidate, now: Timestamp) -> Result<(), Fault> {
        let notify = &self.config.notify;
        let (told_at, before) = one.told;
        let count = one.incident.count;
        let repeat = notify.repeat.map(|repeat| told_at.plus(nanos(repeat)).max(now));
        let next = Some(now.plus(nanos(notify.email_rate_limit)));
        let first = one.looks == Looks::First;
        let still = !first && count > one.seen && repeat.is_none_or(|repeat| repeat > now);
        let storm = count >= before + STORM && !still && has(one, Channel::Email);
        let (looks, due) = if still || first && storm { (Looks::Again, next) } else { (Looks::Done, repeat) };
        let accounted = if storm { count } else { before };
        let known = Known { due, looks, seen: count, count: accounted, ..Known::as_it_was(one) };
        let mut decision = Decision { known: vec![known], ..Decision::about(std::slice::from_ref(one)) };
        if storm {
            let why = format!("it has grown from {before} to {count} anomalies");
            decision.rows.push(held(one, &format!("grown {count}"), Kind::Repeated, Channel::Email, why));
        }
        self.store(decision).await
    }

    /// Decides the digests that are due; returns when the next will be.
    async fn digests(&self, now: Timestamp) -> Result<Option<Timestamp>, Fault> {
        let notify = &self.config.notify;
        let mut back: Vec<(Channel, HeldBack)> = Vec::new();
        for channel in Channel::ALL.into_iter().filter(|&channel| notify.is_configured(channel) && channel.takes(Kind::Digest)) {
            back.extend(self.ask(move |store| store.held_back(channel.name())).await?.map(|held| (channel, held)));
        }
        if back.is_empty() {
            return Ok(None);
        }
        let limits = self.limits(now).await?;
        let quiet = |held: &HeldBack| {
            let (until, since) = held.old_until.zip(held.old_since)?;
            Some(until.plus(nanos(OLD_QUIET)).min(since.plus(nanos(OLD_LONGEST))))
        };
        let mut dues: Vec<_> = back.iter().map(|(channel, held)| quiet(held).max(limits.free_from(*channel))).collect();
        // Old data are counted once, on all channels together.
        if back.iter().any(|(_, held)| held.old_until.is_some()) {
            let last = dues.iter().copied().max().flatten();
            dues.fill(last);
        }
        let mut decision = Decision::default();
        let mut next = None;
        for ((channel, held), due) in back.into_iter().zip(dues) {
            if let Some(at) = due.filter(|at| *at > now) {
                next = next.into_iter().chain([at]).min();
                continue;
            }
            let subject = format!("{} {}", held.upto, held.old_until.map_or(0, Timestamp::nanos));
            let id = notification_id(&subject, Kind::Digest.as_str(), 0, channel);
            decision.digested.push((channel.name().into(), held.upto));
            decision.old_until = decision.old_until.max(held.old_until);
            let base_url = self.base_url.clone();
            let message =
                Message { kind: Kind::Digest, at: now, incidents: Vec::new(), key: String::new(), digest: Some(held.digest), base_url };
            let body = self.channels.render(channel, &message, &id);
            let message = message_id(&now.nanos().to_string(), Kind::Digest.as_str(), 0);
            let in_budget = counts(Kind::Digest, channel);
            decision.rows.push(NewNotification {
                id,
                message,
                channel: channel.name().into(),
                kind: Kind::Digest,
                held: None,
                counts: in_budget,
                body,
            });
        }
        if !decision.rows.is_empty() {
            self.store(decision).await?;
        }
        Ok(next)
    }

    async fn message(&self, kind: Kind, members: &[Candidate], now: Timestamp) -> Message {
        let mut incidents: Vec<_> = members.iter().map(fact).collect();
        if self.config.notify.has_charts()
            && let Some((first, key)) = incidents.first_mut().and_then(|first| SeriesKey::parse(&first.series).map(|key| (first, key)))
        {
            first.points = self.points.around(key.hash(), first.end, CHART.0, CHART.1).await;
        }
        // What was told first has the key of all that follow it up.
        let key = if kind == Kind::Opened { members[0].incident.id.clone() } else { members[0].lead.clone() };
        Message { kind, at: now, incidents, key, digest: None, base_url: self.base_url.clone() }
    }

    async fn limits(&self, now: Timestamp) -> Result<Limits, Fault> {
        let (budget, rate) = (self.config.notify.budget, self.config.notify.email_rate_limit);
        self.ask(move |store| Limits::read(store, budget, rate, now)).await
    }

    async fn led_by(&self, one: &Candidate, kind: Kind, now: Timestamp) -> Result<Vec<Candidate>, Fault> {
        let lead = one.lead.clone();
        self.ask(move |store| store.led_by(&lead, kind, now)).await
    }

    async fn store(&self, decision: Decision) -> Result<(), Fault> {
        self.desk.write(Write::Decide { decision, at: clock::now() }).await?;
        Ok(())
    }

    async fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&StoreReader) -> Result<T, StoreError> + Send + 'static) -> Result<T, Fault> {
        let store = self.store.clone();
        Ok(tokio::task::spawn_blocking(move || ask(&store)).await??)
    }
}

/// A notification that is held back. `how` is in its id, so that it takes no other's.
fn held(first: &Candidate, how: &str, kind: Kind, channel: Channel, why: String) -> NewNotification {
    let what = format!("{} {how}", kind.as_str());
    NewNotification {
        id: notification_id(&first.incident.id, &what, first.times, channel),
        message: message_id(&first.incident.id, &what, first.times),
        channel: channel.name().into(),
        kind,
        held: Some(why),
        counts: true,
        body: Vec::new(),
    }
}
