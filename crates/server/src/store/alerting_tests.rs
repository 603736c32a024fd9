//! The life of incidents in the store: what people say of them, and what the notifier keeps.

use anomaly_engine::NANOS;
use anomaly_engine::frame::Position;

use super::handling::{Act, Acted, What, Word};
use super::notices::{Candidate, Decision, Gathering, Known, NewNotification, Status};
use super::tests::{at, commit, memory, row};
use super::*;
use crate::config::notify::Routing;
use crate::ids::new_id;
use crate::notify::channel::Channel;
use crate::notify::message::Kind;
use crate::share::Share;
use crate::silence::{MatcherSpec, Op, Silence, compile};
use crate::store::sqlite::{Store, StoreReader};

/// Everything goes to email.
fn wait() -> Gathering {
    Gathering { wait: NANOS, max_age: Some(3600 * NANOS), routing: Routing { routes: Vec::new(), configured: vec![Channel::Email] } }
}

fn resolve(store: &mut Store, frame: u64, seconds: i64, incident: &str) {
    let changes = vec![Change::Resolved(incident.into())];
    let upto = Position { frame, row: 7 };
    store.commit(&Commit { upto, at: at(seconds), changes }).unwrap();
}

fn said(by: &str) -> Word {
    Word { by: Some(by.into()), comment: None }
}

fn state(reader: &StoreReader, incident: &str, now: i64) -> State {
    reader.incident(incident, 100, at(now)).unwrap().unwrap().incident.state
}

fn silence_of(store: &mut Store, metric: &str, from: i64, to: i64) -> String {
    let matchers = compile(vec![MatcherSpec { name: "metric".into(), op: Op::Equal, value: metric.into() }]).unwrap();
    let silence = Silence { id: new_id(), matchers, from: at(from), to: at(to), by: Some("ada".into()), comment: None };
    assert!(store.silence(&silence.to_stored(), at(from)).unwrap());
    silence.id
}

fn in_states(reader: &StoreReader, states: &[State], now: i64) -> (Vec<String>, Totals) {
    let filter = Filter { states: states.to_vec(), ..Filter::default() };
    let page = reader.incidents(&filter, None, 100, at(now)).unwrap();
    (page.page.items.into_iter().map(|incident| incident.id).collect(), page.totals)
}

#[test]
fn what_no_engine_has_open_of_a_share_is_over() {
    let (mut store, reader) = memory();
    let rows: Vec<_> = (0..40).map(|i| row(&format!("a{i}"), &format!("m{i}"), 10, 1.0, &format!("i{i}"))).collect();
    commit(&mut store, 1, 10, &rows);
    resolve(&mut store, 2, 11, "i1");
    let share = Share { partition: 1, of: 3 };
    let ours: Vec<_> = rows.iter().filter(|row| share.holds(row.series)).map(|row| row.incident.clone()).collect();
    let (kept, dropped) = ours.split_at(ours.len() / 2);
    // One that the store does not know is none of its business.
    let incidents = kept.iter().cloned().chain(["unknown".to_owned()]).collect();
    let before = reader.after(None, 100).unwrap();
    let changes = vec![Change::OnlyOpen { share, incidents }];
    store.commit(&Commit { upto: Position { frame: 3, row: 7 }, at: at(20), changes }).unwrap();
    assert!(kept.len() > 3 && dropped.len() > 3 && ours.len() < 30);
    for row in &rows {
        let one = reader.incident(&row.incident, 1, at(21)).unwrap().unwrap().incident;
        let over = if row.incident == "i1" { Some(at(11)) } else { dropped.contains(&row.incident).then(|| at(20)) };
        assert_eq!(one.resolved, over, "{}", row.incident);
    }
    assert_eq!(reader.after(None, 100).unwrap(), before);
}

#[test]
fn an_incident_goes_through_its_states() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i"), row("b", "m", 11, 1.0, "i")]);
    assert_eq!(state(&reader, "i", 12), State::Open);
    assert_eq!(store.act("i", &Act::Acknowledge, &said("ada"), at(12)).unwrap(), Acted::Done);
    let one = reader.incident("i", 100, at(13)).unwrap().unwrap().incident;
    assert_eq!((one.state, one.by.as_deref()), (State::Acknowledged, Some("ada")));
    resolve(&mut store, 2, 20, "i");
    let one = reader.incident("i", 100, at(21)).unwrap().unwrap().incident;
    assert_eq!((one.state, one.resolved), (State::Resolved, Some(at(20))));
    assert_eq!(store.act("i", &Act::Acknowledge, &said("ada"), at(21)).unwrap(), Acted::AlreadyResolved);
    assert_eq!(store.act("none", &Act::Close, &said("ada"), at(21)).unwrap(), Acted::Unknown);
    commit(&mut store, 3, 30, &[row("c", "m", 30, 1.0, "i")]);
    assert_eq!(state(&reader, "i", 31), State::Open, "opened again: nobody looks after it");
    assert_eq!(store.act("i", &Act::Close, &said("bob"), at(32)).unwrap(), Acted::Done);
    assert_eq!(state(&reader, "i", 33), State::Resolved);
    commit(&mut store, 4, 40, &[row("d", "m", 40, 1.0, "i")]);
    assert_eq!(state(&reader, "i", 41), State::Open, "an anomaly came after it was closed");
    store.act("i", &Act::Feedback { useful: false, rule: "default".into() }, &said("bob"), at(42)).unwrap();
    let whole = reader.incident("i", 100, at(43)).unwrap().unwrap();
    assert_eq!(whole.incident.useful, Some(false));
    let history: Vec<_> = whole.history.iter().map(|entry| (entry.what, entry.at, entry.word.by.as_deref())).collect();
    assert_eq!(
        history,
        [
            (What::Opened, at(10), None),
            (What::Acknowledged, at(12), Some("ada")),
            (What::Resolved, at(20), None),
            (What::Reopened, at(30), None),
            (What::Closed, at(32), Some("bob")),
            (What::Reopened, at(40), None),
            (What::FalseAlarm, at(42), Some("bob")),
        ]
    );
    let feedback = reader.feedback().unwrap();
    assert_eq!((feedback[0].rule.as_str(), feedback[0].useful, feedback[0].false_alarms), ("default", 0, 1));
}

#[test]
fn a_filter_of_states_pages_and_counts() {
    let (mut store, reader) = memory();
    for (i, metric) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        commit(&mut store, i as u64 + 1, 10, &[row(metric, metric, 10 + i as i64, 1.0, &format!("i{metric}"))]);
    }
    store.act("ia", &Act::Acknowledge, &Word::default(), at(12)).unwrap();
    resolve(&mut store, 9, 20, "ib");
    silence_of(&mut store, "c", 15, 100);
    for (states, expected) in [
        (&[State::Open][..], &["ie", "id"][..]),
        (&[State::Silenced], &["ic"]),
        (&[State::Open, State::Silenced], &["ie", "id", "ic"]),
        (&[State::Acknowledged], &["ia"]),
        (&[State::Resolved], &["ib"]),
        (&[State::Resolved, State::Silenced], &["ic", "ib"]),
        (&[], &["ie", "id", "ic", "ib", "ia"]),
    ] {
        let (ids, totals) = in_states(&reader, states, 50);
        assert_eq!(ids, expected, "{states:?}");
        assert_eq!(totals, Totals { incidents: expected.len() as u64, anomalies: expected.len() as u64 }, "{states:?}");
        let filter = Filter { states: states.to_vec(), ..Filter::default() };
        let (mut cursor, mut paged) = (None, Vec::new());
        loop {
            let page = reader.incidents(&filter, cursor.as_deref(), 1, at(50)).unwrap().page;
            paged.extend(page.items.into_iter().map(|incident| incident.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(paged, expected, "{states:?} by pages of one");
    }
    assert_eq!(in_states(&reader, &[State::Open], 100).0, ["ie", "id", "ic"], "the silence has ended");
}

#[test]
fn a_silence_holds_from_its_making_to_its_end() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i"), row("b", "n", 10, 1.0, "j")]);
    let id = silence_of(&mut store, "m", 20, 100);
    assert_eq!([19, 20, 99, 100].map(|now| state(&reader, "i", now)), [State::Open, State::Silenced, State::Silenced, State::Open]);
    assert_eq!(state(&reader, "j", 50), State::Open);
    assert!(store.end_silence(&id, at(60)).unwrap() && !store.end_silence(&id, at(61)).unwrap());
    assert_eq!([59, 60].map(|now| state(&reader, "i", now)), [State::Silenced, State::Open]);
    assert_eq!(reader.silences(at(70)).unwrap().len(), 1, "one that has just ended is listed");
    assert_eq!(reader.silences(at(8 * 86_400)).unwrap().len(), 0);
}

#[test]
fn what_is_forgotten_or_too_old_takes_everything_with_it() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i")]);
    store.act("i", &Act::Acknowledge, &Word::default(), at(12)).unwrap();
    store.gather(&wait(), at(13)).unwrap();
    assert_eq!(reader.gathered(at(20)).unwrap().len(), 1);
    store.retain(at(11)).unwrap();
    assert!(reader.incident("i", 100, at(20)).unwrap().is_none());
    assert_eq!((reader.gathered(at(20)).unwrap().len(), reader.next_due().unwrap()), (0, None));
    commit(&mut store, 2, 10, &[row("b", "n", 10, 1.0, "j")]);
    store.gather(&wait(), at(13)).unwrap();
    let upto = Position { frame: 3, row: 7 };
    store.commit(&Commit { upto, at: at(14), changes: vec![Change::Forget(row("b", "n", 10, 1.0, "j").series)] }).unwrap();
    assert_eq!((reader.gathered(at(20)).unwrap().len(), reader.next_due().unwrap()), (0, None));
}

/// What the notifier would do first: one message for what is gathered.
fn tell(store: &mut Store, reader: &StoreReader, now: i64) -> Vec<(Kind, String)> {
    store.gather(&wait(), at(now)).unwrap();
    let gathered = reader.gathered(at(now + 1)).unwrap();
    let told: Vec<_> = gathered.iter().map(|one| (one.kind, one.incident.id.clone())).collect();
    let mut decision = Decision::about(&gathered);
    for one in &gathered {
        decision.done.push((one.num, one.kind));
        let said = (one.kind == Kind::Opened).then_some(one.incident.critical);
        decision.known.push(Known { channels: "email".into(), times: one.times + 1, at: at(now), said, ..Known::as_it_was(one) });
    }
    store.decide(&decision, at(now + 1)).unwrap();
    told
}

#[test]
fn each_change_of_an_incident_is_gathered_once() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i"), row("b", "m", 11, 1.0, "i")]);
    assert!(reader.has_news().unwrap());
    assert_eq!(tell(&mut store, &reader, 12), [(Kind::Opened, "i".to_owned())]);
    assert!(!reader.has_news().unwrap());
    commit(&mut store, 2, 13, &[row("c", "m", 13, 1.5, "i")]);
    assert_eq!(tell(&mut store, &reader, 14), [], "one more of the same");
    commit(&mut store, 3, 15, &[row("d", "m", 15, 2.5, "i")]);
    assert_eq!(tell(&mut store, &reader, 16), [(Kind::Escalated, "i".to_owned())]);
    store.act("i", &Act::Acknowledge, &Word::default(), at(17)).unwrap();
    assert_eq!(tell(&mut store, &reader, 18), [(Kind::Acknowledged, "i".to_owned())]);
    resolve(&mut store, 4, 20, "i");
    assert_eq!(tell(&mut store, &reader, 21), [(Kind::Resolved, "i".to_owned())]);
    resolve(&mut store, 5, 22, "i");
    assert_eq!(tell(&mut store, &reader, 23), [], "it was resolved");
    commit(&mut store, 6, 24, &[row("e", "m", 24, 1.0, "i")]);
    assert_eq!(tell(&mut store, &reader, 25), [(Kind::Reopened, "i".to_owned())]);
}

#[test]
fn old_data_is_counted_and_not_gathered() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10_000, &[row("a", "m", 10, 1.0, "i"), row("b", "m", 5000, 1.0, "j"), row("c", "n", 9000, 1.0, "k")]);
    assert_eq!(tell(&mut store, &reader, 10_001), [(Kind::Opened, "k".to_owned())]);
    let back = reader.held_back("email").unwrap().unwrap();
    assert_eq!((back.digest.incidents, back.digest.anomalies, back.digest.old, back.digest.n_series), (2, 2, 2, 1));
    let decision = Decision { old_until: back.old_until, digested: vec![("email".into(), back.upto)], ..Decision::default() };
    store.decide(&decision, at(10_070)).unwrap();
    assert!(reader.held_back("email").unwrap().is_none());
    commit(&mut store, 2, 10_100, &[row("d", "m", 5001, 1.0, "j")]);
    store.gather(&wait(), at(10_101)).unwrap();
    assert_eq!(reader.held_back("email").unwrap().unwrap().digest.old, 1, "more of an old one is counted again");
}

fn notification(id: &str, held: Option<&str>) -> NewNotification {
    let (id, held) = (id.to_owned(), held.map(str::to_owned));
    NewNotification { message: id.clone(), id, channel: "email".into(), kind: Kind::Opened, held, counts: true, body: b"bytes".to_vec() }
}

#[test]
fn a_notification_is_sent_tried_again_given_up_and_sent_again_by_hand() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i")]);
    store.gather(&wait(), at(11)).unwrap();
    let gathered: Vec<Candidate> = reader.gathered(at(12)).unwrap();
    let mut decision = Decision { rows: vec![notification("n", None), notification("h", Some("held"))], ..Decision::about(&gathered) };
    decision.done.push((gathered[0].num, Kind::Opened));
    store.decide(&decision, at(12)).unwrap();
    store.decide(&decision, at(13)).unwrap();
    let listed = reader.notifications(None, None, 10).unwrap().items;
    assert_eq!(listed.iter().map(|one| (one.id.as_str(), one.status)).collect::<Vec<_>>(), [("h", Status::Held), ("n", Status::Pending)]);
    assert_eq!(listed[1].incidents, ["i"]);
    let due = reader.to_send("email", at(14)).unwrap().unwrap();
    assert_eq!((due.id.as_str(), due.body.as_slice(), due.attempts), ("n", &b"bytes"[..], 0));
    store.notification_failed(due.num, "no answer", Some(at(20))).unwrap();
    assert_eq!(reader.to_send("email", at(19)).unwrap().unwrap_err(), Some(at(20)));
    store.notification_failed(due.num, "refused", None).unwrap();
    assert_eq!(reader.to_send("email", at(30)).unwrap().unwrap_err(), None);
    let failed = reader.notification("n").unwrap().unwrap();
    assert_eq!((failed.status, failed.attempts, failed.error.as_deref()), (Status::Failed, 2, Some("refused")));
    assert!(store.resend("n", at(40)).unwrap() && !store.resend("none", at(40)).unwrap());
    assert!(!store.resend("h", at(40)).unwrap(), "what was held has no bytes");
    let again = reader.to_send("email", at(40)).unwrap().unwrap();
    assert_eq!(again.body, b"bytes");
    store.notification_sent(again.num, at(41)).unwrap();
    let sent = reader.notification("n").unwrap().unwrap();
    assert_eq!((sent.status, sent.sent, sent.error), (Status::Sent, Some(at(41)), None));
    assert_eq!((reader.counted(at(0)).unwrap().len(), reader.held().unwrap()), (1, 1));
    assert_eq!(reader.incident("i", 100, at(50)).unwrap().unwrap().notifications.len(), 2);
    let back = reader.held_back("email").unwrap().unwrap();
    assert_eq!((back.digest.incidents, back.digest.old), (1, 0));
    store.decide(&Decision { digested: vec![("email".into(), back.upto)], ..Decision::default() }, at(60)).unwrap();
    assert_eq!((reader.held_back("email").unwrap().is_none(), reader.held().unwrap()), (true, 0));
}

#[test]
fn what_was_found_while_nobody_was_to_be_told_is_not_told_later() {
    let (mut store, reader) = memory();
    store.set_notifying(&["email".into()]).unwrap();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i")]);
    store.set_notifying(&["email".into()]).unwrap();
    assert_eq!(tell(&mut store, &reader, 12), [(Kind::Opened, "i".to_owned())], "an outage, however long, loses nothing");
    let mut decision = Decision { rows: vec![notification("n", None)], ..Decision::default() };
    decision.rows[0].channel = "slack".into();
    store.decide(&decision, at(13)).unwrap();
    store.set_notifying(&[]).unwrap();
    let given_up = reader.notification("n").unwrap().unwrap();
    assert_eq!((given_up.status, given_up.error.as_deref()), (Status::Failed, Some("its channel is not configured any more")));
    commit(&mut store, 2, 20, &[row("b", "n", 20, 1.0, "j")]);
    store.set_notifying(&["email".into()]).unwrap();
    assert_eq!(tell(&mut store, &reader, 22), []);
    commit(&mut store, 3, 30, &[row("c", "o", 30, 1.0, "k")]);
    assert_eq!(tell(&mut store, &reader, 32), [(Kind::Opened, "k".to_owned())]);
}

#[test]
fn what_changes_while_it_is_decided_is_told_next() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i")]);
    store.gather(&wait(), at(11)).unwrap();
    let gathered = reader.gathered(at(12)).unwrap();
    // Over, and worse, before the message that tells it first is stored.
    commit(&mut store, 2, 12, &[row("b", "m", 12, 3.0, "i")]);
    resolve(&mut store, 3, 12, "i");
    store.gather(&wait(), at(12)).unwrap();
    let mut decision = Decision::about(&gathered);
    decision.done.push((gathered[0].num, Kind::Opened));
    decision.known.push(Known { channels: "email".into(), said: Some(false), ..Known::as_it_was(&gathered[0]) });
    store.decide(&decision, at(13)).unwrap();
    assert_eq!(tell(&mut store, &reader, 14), [(Kind::Resolved, "i".to_owned())]);
}

#[test]
fn resolved_does_not_overtake_opened() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i"), row("b", "n", 10, 1.0, "j")]);
    store.gather(&wait(), at(11)).unwrap();
    let gathered = reader.gathered(at(12)).unwrap();
    let about = |one: &str| gathered.iter().filter(|candidate| candidate.incident.id == one).cloned().collect::<Vec<_>>();
    let mut told = |id: &str, kind, one: &str| {
        let rows = vec![NewNotification { kind, ..notification(id, None) }];
        store.decide(&Decision { rows, ..Decision::about(&about(one)) }, at(12)).unwrap();
    };
    told("opened", Kind::Opened, "i");
    told("resolved", Kind::Resolved, "i");
    told("other", Kind::Opened, "j");
    let first = reader.to_send("email", at(13)).unwrap().unwrap();
    assert_eq!(first.id, "opened");
    store.notification_failed(first.num, "no answer", Some(at(100))).unwrap();
    let next = reader.to_send("email", at(14)).unwrap().unwrap();
    assert_eq!(next.id, "other", "what is about another incident goes on");
    store.notification_sent(next.num, at(14)).unwrap();
    assert_eq!(reader.to_send("email", at(15)).unwrap().unwrap_err(), Some(at(100)));
    store.notification_sent(first.num, at(100)).unwrap();
    let last = reader.to_send("email", at(101)).unwrap().unwrap();
    assert_eq!((last.id.as_str(), reader.outdated(last.num, Kind::Resolved, "email", at(101)).unwrap()), ("resolved", None));
}

#[test]
fn what_waited_is_looked_at_again_before_it_is_sent() {
    let (mut store, reader) = memory();
    commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i")]);
    store.gather(&wait(), at(11)).unwrap();
    let gathered = reader.gathered(at(12)).unwrap();
    store.decide(&Decision { rows: vec![notification("opened", None)], ..Decision::about(&gathered) }, at(12)).unwrap();
    let waiting = reader.to_send("email", at(13)).unwrap().unwrap();
    let outdated = |now| reader.outdated(waiting.num, Kind::Opened, "email", at(now)).unwrap();
    assert_eq!(outdated(13), None);
    silence_of(&mut store, "m", 20, 50);
    assert_eq!(outdated(21), Some(("silenced before it could be told", Some(at(50)))));
    assert_eq!(outdated(51), None);
    store.act("i", &Act::Acknowledge, &Word::default(), at(52)).unwrap();
    assert_eq!(outdated(53), Some(("acknowledged before it could be told", None)));
    resolve(&mut store, 2, 54, "i");
    assert_eq!(outdated(55), Some(("over before it could be told", None)));
    assert_eq!(reader.outdated(waiting.num, Kind::Resolved, "email", at(56)).unwrap(), Some(("nothing was told of it here", None)));
    store.withhold(waiting.num, "silenced before it could be told", Some(at(70))).unwrap();
    let held = reader.notification("opened").unwrap().unwrap();
    assert_eq!((held.status, reader.held().unwrap()), (Status::Held, 0), "it is in no digest");
    assert_eq!(reader.next_due().unwrap(), Some(at(12)));
}

#[test]
fn a_silence_that_stops_one_channel_does_not_tell_the_others_again() {
    for (elsewhere, expected) in [(Some(true), None), (Some(false), None), (None, Some(at(50)))] {
        let (mut store, reader) = memory();
        commit(&mut store, 1, 10, &[row("a", "m", 10, 1.0, "i")]);
        assert_eq!(tell(&mut store, &reader, 11), [(Kind::Opened, "i".to_owned())]);
        let told = reader.led_by("i", Kind::Opened, at(12)).unwrap();
        let mut rows = vec![notification("mail", None)];
        rows.extend(elsewhere.map(|_| NewNotification { channel: "webhook".into(), ..notification("hook", None) }));
        store.decide(&Decision { rows, ..Decision::about(&told) }, at(12)).unwrap();
        if elsewhere == Some(true) {
            let hook = reader.to_send("webhook", at(13)).unwrap().unwrap();
            store.notification_sent(hook.num, at(13)).unwrap();
        }
        let mail = reader.to_send("email", at(14)).unwrap().unwrap();
        store.withhold(mail.num, "silenced before it could be told", Some(at(50))).unwrap();
        assert_eq!(reader.next_due().unwrap(), expected, "{elsewhere:?}");
        if elsewhere.is_some() {
            resolve(&mut store, 2, 60, "i");
            assert_eq!(tell(&mut store, &reader, 61), [(Kind::Resolved, "i".to_owned())], "whoever was told hears that it is over");
        }
    }
}
