//! Which incidents are one message.

use std::collections::BTreeMap;

use anomaly_engine::Timestamp;

use super::channel::{Channel, names};
use super::message::Kind;
use crate::config::NotifyConfig;
use crate::silence::{Silence, Subject, silencing};
use crate::store::State;
use crate::store::notices::{Candidate, Decision, Known, Phase};

/// Incidents of one message, and the channels on which they are told.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    pub(super) channels: Vec<Channel>,
    /// The first mover first; at least one.
    pub(super) members: Vec<Candidate>,
}

impl Group {
    /// Whether it follows up the message that a lead's incident was told in.
    pub(super) fn is_about(&self, kind: Kind, lead: &str) -> bool {
        self.kind == kind && kind != Kind::Opened && self.members[0].lead == lead
    }
}

/// Sorts new incidents, and those whose silence has ended (`true`), into messages: one for those that agree in the labels of
/// `NOTIFY_GROUP_BY` and go to the same channels. Of whom nobody is to hear, that is put into `rest`.
pub(super) fn gathered_anew(
    notify: &NotifyConfig,
    opened: Vec<(Candidate, bool)>,
    silences: &[Silence],
    rest: &mut Decision,
    now: Timestamp,
) -> Vec<Group> {
    let mut groups: BTreeMap<(Vec<String>, String), Group> = BTreeMap::new();
    for (one, was_silent) in opened {
        let subject =
            Subject { series: &one.incident.name, metric: &one.incident.metric, labels: &one.labels, critical: one.incident.critical };
        let channels = notify.channels_of(subject);
        let silence = silencing(silences, subject, now);
        // What was over when its silence ended is no news.
        let is_past = was_silent && one.incident.state == State::Resolved;
        if let Some(silence) = silence.filter(|_| !is_past) {
            rest.known.push(Known { phase: Phase::Silent, due: Some(silence.to), ..Known::as_it_was(&one) });
        } else if is_past || one.incident.state == State::Acknowledged || channels.is_empty() {
            rest.known.push(Known { phase: Phase::Quiet, due: None, ..Known::as_it_was(&one) });
        } else {
            let labels = notify.group_by.iter().map(|name| subject.label(name).unwrap_or_default().to_owned()).collect();
            let group = groups.entry((labels, names(&channels)));
            group.or_insert(Group { kind: Kind::Opened, channels, members: Vec::new() }).members.push(one);
        }
    }
    groups.into_values().collect()
}

/// The message that says that a known incident has changed, with all that were told together with it; `None` where it is not
/// yet, or no longer, to be said.
pub(super) fn follow_up(notify: &NotifyConfig, one: &Candidate, mut members: Vec<Candidate>) -> Option<Group> {
    let is_over = |one: &Candidate| one.incident.state == State::Resolved;
    let goes = match one.kind {
        Kind::Resolved => members.iter().all(is_over),
        Kind::Acknowledged => members.iter().all(|one| is_over(one) || one.incident.state == State::Acknowledged),
        kind => {
            // Only what it is news of.
            members.retain(|one| one.incident.state == State::Open && (kind != Kind::Escalated || one.incident.critical));
            one.incident.state == State::Open
        }
    };
    if goes { of_lead(notify, one.kind, members) } else { None }
}

/// Whether an incident is open, and more anomalies have come since it was told.
pub(super) fn goes_on(one: &Candidate) -> bool {
    one.incident.state == State::Open && one.incident.count > one.told.1
}

/// A message to whoever was told of any of them, and, while they go on, to whoever is to be told as they are now: what has become
/// critical may have another route than the warning.
pub(super) fn of_lead(notify: &NotifyConfig, kind: Kind, members: Vec<Candidate>) -> Option<Group> {
    let goes_on = !matches!(kind, Kind::Resolved | Kind::Acknowledged);
    let wanted = |one: &Candidate| notify.channels_of(one.subject());
    let now: Vec<_> = if goes_on { members.iter().flat_map(wanted).collect() } else { Vec::new() };
    let channels: Vec<_> =
        Channel::ALL.into_iter().filter(|channel| now.contains(channel) || members.iter().any(|one| has(one, *channel))).collect();
    (!members.is_empty() && channels.iter().any(|channel| channel.takes(kind))).then_some(Group { kind, channels, members })
}

/// Whether an incident was told on a channel.
pub(super) fn has(one: &Candidate, channel: Channel) -> bool {
    one.channels.split(',').any(|name| name == channel.name())
}
