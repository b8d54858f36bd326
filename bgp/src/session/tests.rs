//! Every cell of the table, as text and as behaviour.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::{PeerConfig, PeerKind, Policy};
use crate::session::collision::Side;
use crate::session::fault::Fault;
use crate::session::link::Link;
use crate::session::negotiate::{local_open, negotiate};
use crate::session::state::Event;
use crate::session::table::{Reaction, cell};
use crate::session::timer::Timer;
use crate::session::{Local, Output, Peer, SessionEvent, State};
use crate::types::{Asn, RouterId};
use crate::wire::{Context, Message, Notification, decode, encode, frame};

#[expect(clippy::disallowed_methods, reason = "deadlines need some instant to start from")]
fn instant() -> Instant {
    Instant::now()
}

fn local(id: u8) -> Local {
    Local {
        asn: Asn(65001),
        router_id: RouterId(Ipv4Addr::new(10, 0, 0, id)),
        hostname: "node".to_owned(),
    }
}

fn config(peer: u8) -> PeerConfig {
    PeerConfig {
        connect_retry: Duration::from_secs(5),
        import: Policy::All,
        export: Policy::All,
        ..PeerConfig::new(
            format!("peer-{peer}"),
            PeerKind::Mesh,
            IpAddr::from([10, 0, 0, peer]),
            Asn(65001),
        )
    }
}

fn here() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 40000))
}

/// A peer whose outgoing FSM was brought to `state` by real events, outputs drained.
fn peer_in(state: State, now: Instant) -> Peer {
    let mut peer = Peer::new(now, 1, local(1), config(2), 7);
    if state == State::Idle {
        return peer;
    }
    peer.start(now);
    let Some(Output::Connect { conn, .. }) = peer.poll_output() else { panic!("no dial") };
    match state {
        State::Idle | State::Connect => {}
        State::Active => peer.connect_failed(now, conn, "refused".to_owned()),
        State::OpenSent | State::OpenConfirm | State::Established => {
            peer.connected(now, conn, here());
            let mut bytes = Vec::new();
            if state >= State::OpenConfirm {
                encode::open(&local_open(&local(2), &config(1), false), &mut bytes);
            }
            if state == State::Established {
                encode::keepalive(&mut bytes);
            }
            peer.receive(now, conn, &bytes, &mut |_| {});
            peer.transmit(now, conn, &mut Vec::new());
        }
    }
    while peer.poll_output().is_some() {}
    assert_eq!(peer.outgoing.state, state);
    peer
}

/// What one event does, seen from outside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effect {
    /// OPEN, KEEPALIVE, or code/subcode of a NOTIFICATION.
    sent: Vec<String>,
    closed: bool,
    dialled: bool,
}

fn effect(peer: &mut Peer, now: Instant, conn: Option<super::ConnectionId>) -> Effect {
    let mut effect = Effect::default();
    let mut bytes: Vec<Bytes> = Vec::new();
    if let Some(conn) = conn {
        peer.transmit(now, conn, &mut bytes);
    }
    while let Some(output) = peer.poll_output() {
        match output {
            Output::Close { .. } => effect.closed = true,
            Output::Connect { .. } => effect.dialled = true,
            Output::Transmit { .. } | Output::Event(_) => {}
        }
    }
    for message in bytes {
        let (_, len) = frame(&message, 4096).unwrap().unwrap();
        assert_eq!(len, message.len());
        effect.sent.push(match decode(&message, &Context::OPENING).unwrap() {
            Message::Open(_) => "OPEN".to_owned(),
            Message::Keepalive => "KEEPALIVE".to_owned(),
            Message::Notification(n) => format!("{}/{}", n.code, n.subcode),
            other => panic!("{other:?}"),
        });
    }
    effect
}

fn fault_for(event: Event) -> Option<Fault> {
    match event {
        Event::ManualStop | Event::AutomaticStop => Some(Fault::Stopped(Notification::new(6, 2))),
        Event::OpenCollisionDump => Some(Fault::Collision),
        Event::BgpHeaderErr => Some(malformed(1, 3)),
        Event::BgpOpenMsgErr => Some(malformed(2, 4)),
        Event::UpdateMsgErr => Some(malformed(3, 1)),
        _ => None,
    }
}

fn malformed(code: u8, subcode: u8) -> Fault {
    let error = crate::wire::DecodeError {
        offset: 0,
        reason: "test",
        notification: Notification::new(code, subcode),
    };
    Fault::Malformed(error)
}

/// The documented table: event number -> six cells, `State: reaction` or `-`.
fn documented() -> Vec<(usize, String, Vec<String>)> {
    include_str!("mod.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .filter_map(|line| {
            let mut columns = line.trim_end_matches(" |").split(" | ").map(str::to_owned);
            let number = columns.next()?.parse().ok()?;
            Some((number, columns.next()?, columns.collect()))
        })
        .collect()
}

fn split(cell: &str, state: State) -> (String, String) {
    cell.split_once(": ").map_or_else(
        || (state.to_string(), cell.to_owned()),
        |(next, reaction)| (next.to_owned(), reaction.to_owned()),
    )
}

#[test]
fn the_documented_table_is_the_table() {
    let rows = documented();
    assert_eq!(rows.len(), 29);
    let mut cells = 0;
    for (event, (number, name, columns)) in Event::ALL.into_iter().zip(&rows) {
        assert_eq!((event.number(), format!("{event:?}")), (*number, name.clone()));
        assert_eq!(columns.len(), 6, "{event:?}");
        for (state, text) in State::ALL.into_iter().zip(columns) {
            let cell = cell(state, event);
            let (next, reaction) = split(text, state);
            assert_eq!(cell.next.to_string(), next, "{state} {event:?}");
            assert_eq!(cell.reaction.name(), reaction, "{state} {event:?}");
            cells += 1;
        }
    }
    assert_eq!(cells, 174);
}

/// What the documented cell means, told a second time without the list of actions.
fn expected(reaction: &str, before: State, dropped: bool) -> Effect {
    let fsm = match before {
        State::OpenSent => "5/1",
        State::OpenConfirm => "5/2",
        State::Idle | State::Connect | State::Active | State::Established => "5/3",
    };
    let (sent, closed, dialled): (&[&str], bool, bool) = match reaction {
        "-" | "listen" | "pause" | "damp" | "establish" | "refresh" | "update" => {
            (&[], false, false)
        }
        // In Idle "start" raises AutomaticStart, and this peer is not passive.
        "dial" | "retry" | "start" => (&[], false, true),
        "redial" => (&[], true, true),
        "open" => (&["OPEN"], false, false),
        "confirm" | "keepalive" => (&["KEEPALIVE"], false, false),
        "open+confirm" => (&["OPEN", "KEEPALIVE"], false, false),
        "wait" | "refuse" | "stop" | "quit" => (&[], true, false),
        "stop 6/x" => (&["6/2"], true, false),
        "cease 6/x" => (&["6/c"], true, false),
        "hold 4/0" => (&["4/0"], true, false),
        "fsm 5/x" => (std::slice::from_ref(&fsm), true, false),
        "found n/x" => (&["n/x"], true, false),
        "sendhold 8/0" => (&["8/0"], true, false),
        other => panic!("unknown reaction {other}"),
    };
    let sent = sent.iter().map(|s| (*s).to_owned()).collect();
    Effect { sent, closed: closed && dropped, dialled }
}

/// Timers that must run after a transition to `next`.
fn timers(next: State, reaction: &str) -> BTreeSet<String> {
    let timers: &[Timer] = match next {
        State::Idle if reaction == "damp" => &[Timer::IdleHold],
        State::Idle => &[],
        State::Connect | State::Active => &[Timer::ConnectRetry],
        State::OpenSent => &[Timer::Hold],
        State::OpenConfirm => &[Timer::Hold, Timer::Keepalive],
        State::Established => &[Timer::Hold, Timer::Keepalive, Timer::SendHold],
    };
    timers.iter().map(|t| format!("{t:?}")).collect()
}

#[test]
fn every_cell_does_what_is_documented() {
    let now = instant();
    for (event, (_, _, columns)) in Event::ALL.into_iter().zip(documented()) {
        for (state, text) in State::ALL.into_iter().zip(columns) {
            let what = format!("{state} {event:?}: {text}");
            let mut peer = peer_in(state, now);
            let comes_up = matches!(
                event,
                Event::TcpConnectionValid
                    | Event::TcpConnectionInvalid
                    | Event::TcpConnectionAcked
                    | Event::TcpConnectionConfirmed
                    | Event::DelayOpenTimerExpires
                    | Event::BgpOpenDelayed
            );
            // These events are about a TCP connection that is up.
            if comes_up && !text.starts_with('-') && peer.outgoing.link.is_none() {
                let id = peer.name_connection();
                peer.outgoing.link = Some(Link::new(id, now, Some(here())));
            }
            if matches!(event, Event::BgpOpen | Event::BgpOpenDelayed)
                && let Some(link) = peer.outgoing.link.as_mut()
            {
                let (ours, theirs) = (
                    local_open(&local(1), &config(2), false),
                    local_open(&local(2), &config(1), false),
                );
                link.negotiated = Some(Arc::new(negotiate(&ours, &theirs)));
            }
            let conn = peer.outgoing.link.as_ref().map(|link| link.id);
            let later = now + Duration::from_secs(1);
            peer.fire(later, Side::Outgoing, event, fault_for(event));

            let (next, reaction) = split(&text, state);
            let started = reaction == "start";
            let next = if started { "Connect" } else { &next };
            assert_eq!(peer.outgoing.state.to_string(), next, "{what}");
            let running: BTreeSet<_> = Timer::ALL
                .into_iter()
                .filter(|t| peer.outgoing.timers.get(*t).is_some())
                .map(|t| format!("{t:?}"))
                .collect();
            assert_eq!(running, timers(peer.outgoing.state, &reaction), "{what}");
            assert!(peer.outgoing.is_alive(), "{what}");
            assert_eq!(
                peer.outgoing.link.is_some(),
                peer.outgoing.state.is_connected() || peer.outgoing.state == State::Connect,
                "{what}"
            );

            let mut expected = expected(&reaction, state, conn.is_some());
            for sent in &mut expected.sent {
                match (sent.as_str(), event) {
                    ("6/c", Event::OpenCollisionDump) => "6/7".clone_into(sent),
                    ("6/c", _) => "6/2".clone_into(sent),
                    ("n/x", Event::BgpHeaderErr) => "1/3".clone_into(sent),
                    ("n/x", Event::BgpOpenMsgErr) => "2/4".clone_into(sent),
                    ("n/x", _) => "3/1".clone_into(sent),
                    // What was malformed is told rather than 5/x.
                    ("5/1" | "5/2", Event::UpdateMsgErr) => "3/1".clone_into(sent),
                    ("5/3", Event::BgpOpenMsgErr) => "2/4".clone_into(sent),
                    _ => {}
                }
            }
            assert_eq!(effect(&mut peer, later, conn), expected, "{what}");
        }
    }
}

#[test]
fn every_session_that_ends_releases_its_timers_before_its_connection() {
    for state in State::ALL {
        for event in Event::ALL {
            let cell = cell(state, event);
            let actions = cell.reaction.actions();
            let drops = actions.contains(&super::table::Action::Drop);
            if state.is_connected() && cell.next < State::OpenSent {
                assert!(drops, "{state} {event:?} keeps a connection in {}", cell.next);
                assert!(actions.contains(&super::table::Action::Release), "{state} {event:?}");
            }
            if cell.reaction == Reaction::Ignore {
                assert_eq!(cell.next, state, "{state} {event:?} moves without a reaction");
            }
        }
    }
}

#[test]
fn establishing_tells_the_speaker_before_the_updates_of_the_same_chunk() {
    let now = instant();
    let mut peer = peer_in(State::OpenConfirm, now);
    let conn = peer.outgoing.link.as_ref().unwrap().id;
    let mut bytes = Vec::new();
    encode::keepalive(&mut bytes);
    encode::end_of_rib(crate::types::Family::Ipv6, &mut bytes);
    let mut seen = Vec::new();
    peer.receive(now, conn, &bytes, &mut |event| {
        seen.push(match event {
            SessionEvent::Update(update) => format!("update {:?}", update.end_of_rib),
            SessionEvent::RouteRefresh(_) => "refresh".to_owned(),
            SessionEvent::Peer(super::PeerEvent::Up { .. }) => "up".to_owned(),
            SessionEvent::Peer(super::PeerEvent::Down { .. }) => "down".to_owned(),
        });
    });
    assert_eq!(seen, ["up", "update Some(Ipv6)"]);
}
