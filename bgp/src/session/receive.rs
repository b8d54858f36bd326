//! Bytes to messages to events.

use std::sync::Arc;
use std::time::Instant;

use crate::session::collision::{self, Identity, Side, Verdict};
use crate::session::fault::Fault;
use crate::session::link::{ConnectionId, Held, count};
use crate::session::negotiate::negotiate;
use crate::session::open_check::{self, Expected};
use crate::session::output::SessionEvent;
use crate::session::peer::Peer;
use crate::session::state::{Event, State};
use crate::session::timer::{COLLISION_WAIT, Timer};
use crate::wire::error::DecodeError;
use crate::wire::notification::{cease, error_code, open};
use crate::wire::open::Open;
use crate::wire::{self, HEADER_LEN, Message, MessageType};

/// Why a session ended that its peer has forgotten.
const REPLACED: &str = "the peer has restarted and opened a new session";

impl Peer {
    /// Takes bytes as read from TCP, in any chunks, and hands what they mean to `sink`, in order.
    ///
    /// UPDATEs borrow from `bytes`; only an incomplete message at the end is copied. Nothing after
    /// a message that ends the session is looked at. Octets of an incomplete message do not count
    /// as a sign of life.
    pub fn receive(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        bytes: &[u8],
        sink: &mut impl FnMut(SessionEvent<'_>),
    ) {
        let Some(side) = self.side_of(conn) else { return };
        let mut rest = bytes;
        if let Some(link) = self.machine(side).link.as_mut()
            && !link.partial.is_empty()
        {
            // Out of the link for as long as its message is borrowed.
            let mut partial = std::mem::take(&mut link.partial);
            rest = self.complete(now, side, &mut partial, rest, sink);
            if let Some(link) = self.machine(side).link.as_mut().filter(|link| link.id == conn) {
                link.partial = partial;
            }
        }
        while !rest.is_empty() && self.side_of(conn).is_some() {
            match self.next_message(now, side, rest, sink) {
                Some(len) => rest = rest.get(len..).unwrap_or_default(),
                None => break,
            }
        }
        if let Some(link) = self.machine(side).link.as_mut().filter(|link| link.id == conn) {
            link.partial.extend_from_slice(rest);
        }
        self.settle(now);
        self.drain_events(sink);
    }

    /// Fills `partial` up to the end of its message and handles that; returns what is left of
    /// `bytes`. `partial` is empty afterwards unless more bytes are needed, in which case none
    /// are left.
    fn complete<'b>(
        &mut self,
        now: Instant,
        side: Side,
        partial: &mut Vec<u8>,
        mut bytes: &'b [u8],
        sink: &mut impl FnMut(SessionEvent<'_>),
    ) -> &'b [u8] {
        let mut take = |partial: &mut Vec<u8>, up_to: usize| {
            let missing = up_to.saturating_sub(partial.len()).min(bytes.len());
            let (head, tail) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
            partial.extend_from_slice(head);
            bytes = tail;
        };
        take(partial, HEADER_LEN);
        if let Some(&[high, low]) = partial.get(16..18) {
            // A length that is wrong is found by the framer, with or without the body.
            take(partial, usize::from(u16::from_be_bytes([high, low])));
        }
        if self.next_message(now, side, partial, sink).is_some() {
            // Its memory too: a thousand idle peers need none.
            *partial = Vec::new();
        }
        bytes
    }

    /// Handles the message at the beginning of `bytes`; its length, or `None` if there is no whole
    /// message or no connection any more.
    fn next_message(
        &mut self,
        now: Instant,
        side: Side,
        bytes: &[u8],
        sink: &mut impl FnMut(SessionEvent<'_>),
    ) -> Option<usize> {
        let link = self.machine(side).link.as_mut()?;
        let (kind, message) = match wire::frame(bytes, link.max_len()) {
            Ok(None) => return None,
            Ok(Some((kind, len))) => (kind, bytes.get(..len)?),
            Err(error) => {
                self.fire(now, side, Event::BgpHeaderErr, Some(Fault::Malformed(error)));
                self.drain_events(sink);
                return None;
            }
        };
        count(&mut link.received, kind);
        let delivery = match self.machine_ref(side).state {
            State::OpenSent => self.in_open_sent(now, side, kind, message),
            State::OpenConfirm => self.in_open_confirm(now, side, kind, message),
            State::Established => self.in_established(now, side, kind, message),
            // Without a connection there are no bytes.
            State::Idle | State::Connect | State::Active => return None,
        };
        self.drain_events(sink);
        if let Some(event) = delivery {
            sink(event);
        }
        Some(message.len())
    }

    fn drain_events(&mut self, sink: &mut impl FnMut(SessionEvent<'_>)) {
        while let Some(event) = self.events.pop_front() {
            sink(SessionEvent::Peer(event));
        }
    }

    fn in_open_sent(
        &mut self,
        now: Instant,
        side: Side,
        kind: MessageType,
        message: &[u8],
    ) -> Option<SessionEvent<'static>> {
        match kind {
            MessageType::Open => match self.decode(side, message) {
                Ok(Message::Open(open)) => self.opened(now, side, &open),
                Ok(_) => {}
                Err(error) => {
                    self.fire(now, side, Event::BgpOpenMsgErr, Some(Fault::Malformed(error)));
                }
            },
            MessageType::Notification => self.notified(now, side, message),
            MessageType::Keepalive => self.unexpected(now, side, Event::KeepAliveMsg, kind),
            // ROUTE-REFRESH has no event of its own; it is as out of place as an UPDATE.
            MessageType::Update | MessageType::RouteRefresh => {
                self.unexpected(now, side, Event::UpdateMsg, kind);
            }
        }
        None
    }

    fn in_open_confirm(
        &mut self,
        now: Instant,
        side: Side,
        kind: MessageType,
        message: &[u8],
    ) -> Option<SessionEvent<'static>> {
        match kind {
            MessageType::Keepalive => {
                let held = self.machine(side).link.as_mut().and_then(|link| link.hold.as_mut());
                match held {
                    Some(held) => held.keepalive_seen = true,
                    None => self.fire(now, side, Event::KeepAliveMsg, None),
                }
            }
            MessageType::Notification => self.notified(now, side, message),
            MessageType::Open => self.unexpected(now, side, Event::BgpOpen, kind),
            MessageType::Update | MessageType::RouteRefresh => {
                self.unexpected(now, side, Event::UpdateMsg, kind);
            }
        }
        None
    }

    fn in_established<'a>(
        &mut self,
        now: Instant,
        side: Side,
        kind: MessageType,
        message: &'a [u8],
    ) -> Option<SessionEvent<'a>> {
        match kind {
            MessageType::Keepalive => self.fire(now, side, Event::KeepAliveMsg, None),
            MessageType::Notification => self.notified(now, side, message),
            MessageType::Open => self.unexpected(now, side, Event::BgpOpen, kind),
            MessageType::Update | MessageType::RouteRefresh => {
                match self.decode(side, message) {
                    Ok(Message::Update(update)) => {
                        self.fire(now, side, Event::UpdateMsg, None);
                        return Some(SessionEvent::Update(update));
                    }
                    Ok(Message::RouteRefresh(refresh)) => {
                        return Some(SessionEvent::RouteRefresh(refresh));
                    }
                    Ok(Message::Open(_) | Message::Notification(_) | Message::Keepalive) => {}
                    Err(error) => {
                        let event = match kind {
                            MessageType::Update => Event::UpdateMsgErr,
                            // No event either: 7/1 and 1/2 are told as found.
                            _ => Event::BgpHeaderErr,
                        };
                        self.fire(now, side, event, Some(Fault::Malformed(error)));
                    }
                }
            }
        }
        None
    }

    fn decode<'a>(&self, side: Side, message: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let context = self
            .machine_ref(side)
            .link
            .as_ref()
            .map_or(&wire::Context::OPENING, |link| link.receive_context());
        wire::decode(message, context)
    }

    fn unexpected(&mut self, now: Instant, side: Side, event: Event, message: MessageType) {
        let state = self.machine_ref(side).state;
        self.fire(now, side, event, Some(Fault::Unexpected { state, message }));
    }

    fn notified(&mut self, now: Instant, side: Side, message: &[u8]) {
        let Ok(Message::Notification(notification)) = self.decode(side, message) else { return };
        let event = match (notification.code, notification.subcode) {
            (error_code::OPEN, open::UNSUPPORTED_VERSION) => Event::NotifMsgVerErr,
            _ => Event::NotifMsg,
        };
        let established = self.machine_ref(side).state == State::Established;
        let fault = match (notification.code, notification.subcode) {
            // The peer has settled the collision: nobody is to blame.
            (error_code::CEASE, cease::COLLISION) if !established => Fault::Collision,
            _ => Fault::NotificationReceived(notification),
        };
        self.fire(now, side, event, Some(fault));
    }

    /// A well-formed OPEN: does it fit the configuration, and does this connection survive?
    fn opened(&mut self, now: Instant, side: Side, remote: &Open) {
        let local = self.own_open(now);
        let expected = Expected {
            asn: self.config.asn,
            local_asn: self.local.asn,
            local_router_id: self.local.router_id,
            families: self.config.families,
        };
        if let Err(refusal) = open_check::check(remote, &expected) {
            self.fire(now, side, Event::BgpOpenMsgErr, Some(Fault::OpenRefused(refusal)));
            return;
        }
        let us = Identity { router_id: self.local.router_id.0, asn: self.local.asn };
        let them = Identity { router_id: remote.router_id, asn: remote.asn() };
        let other = self.machine_ref(side.other()).state;
        let verdict = collision::judge(side, other, us, them);
        match verdict {
            Verdict::Alone | Verdict::Held => {}
            Verdict::Wins => {
                let lost = Some(Fault::Collision);
                self.fire(now, side.other(), Event::OpenCollisionDump, lost);
            }
            // RFC 4724 §5: a peer with graceful restart that begins again has lost the old session.
            Verdict::Loses if other == State::Established && self.is_replaceable(now) => {
                let lost = Fault::ConnectionLost(REPLACED.to_owned());
                self.fire(now, side.other(), Event::TcpConnectionFails, Some(lost));
            }
            Verdict::Loses => {
                self.fire(now, side, Event::OpenCollisionDump, Some(Fault::Collision));
                return;
            }
        }
        let machine = self.machine(side);
        if let Some(link) = machine.link.as_mut() {
            link.negotiated = Some(Arc::new(negotiate(&local, remote)));
            link.hold = (verdict == Verdict::Held).then(Held::default);
            if link.hold.is_some() {
                machine.timers.arm(Timer::Collision, now, COLLISION_WAIT);
            }
        }
        self.fire(now, side, Event::BgpOpen, None);
    }
}
