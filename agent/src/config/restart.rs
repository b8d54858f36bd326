//! Graceful restart (RFC 4724) as BGPConfiguration and BGPPeer have it.

use std::time::Duration;

use api::crd::GracefulRestartSpec;
use api::error_code;
use bgp::config::{GracefulRestart, PeerKind};

use super::FieldFault;

/// Longest restart time that an OPEN has room for, in seconds.
const LONGEST: u16 = 4095;

/// What somebody chose, valid by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RestartSettings {
    enabled: Option<bool>,
    restart_time: Option<Duration>,
    stale_time: Option<Duration>,
}

impl RestartSettings {
    pub(super) fn parse(spec: Option<&GracefulRestartSpec>) -> Result<Self, Vec<FieldFault>> {
        let Some(spec) = spec else { return Ok(Self::default()) };
        let mut faults = Vec::new();
        let mut fault = |field: &str, message: String| {
            let field = format!("spec.gracefulRestart.{field}");
            faults.push(FieldFault::new(error_code::INVALID_BGP_CONFIG, field, message));
        };
        let (restart, stale) = (spec.restart_time_seconds, spec.stale_time_seconds);
        if let Some(seconds) = restart.filter(|seconds| !(1..=LONGEST).contains(seconds)) {
            fault("restartTimeSeconds", format!("{seconds} is not within 1 to {LONGEST}"));
        }
        if stale == Some(0) {
            fault("staleTimeSeconds", "0 would keep nothing; use enabled: false".to_owned());
        }
        if let (Some(restart), Some(stale)) = (restart, stale)
            && stale < restart
        {
            let message = format!("{stale} is less than restartTimeSeconds, {restart}");
            fault("staleTimeSeconds", message);
        }
        let seconds = |seconds: u16| Duration::from_secs(seconds.into());
        if faults.is_empty() {
            Ok(Self {
                enabled: spec.enabled,
                restart_time: restart.map(seconds),
                stale_time: stale.map(seconds),
            })
        } else {
            Err(faults)
        }
    }

    /// This, and where it says nothing `general`.
    pub(super) fn or(self, general: Self) -> Self {
        Self {
            enabled: self.enabled.or(general.enabled),
            restart_time: self.restart_time.or(general.restart_time),
            stale_time: self.stale_time.or(general.stale_time),
        }
    }

    /// For a peer of this kind. What was kept waits at least as long as the peer may be away.
    pub(super) fn of(self, kind: PeerKind) -> Option<GracefulRestart> {
        let default = GracefulRestart::of(kind);
        let restart_time = self.restart_time.unwrap_or(default.restart_time);
        let stale_time = self.stale_time.unwrap_or(default.stale_time).max(restart_time);
        let chosen = GracefulRestart { restart_time, stale_time, ..default };
        self.enabled.unwrap_or(true).then_some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(restart: Option<u16>, stale: Option<u16>) -> GracefulRestartSpec {
        GracefulRestartSpec {
            enabled: None,
            restart_time_seconds: restart,
            stale_time_seconds: stale,
        }
    }

    fn times(settings: RestartSettings) -> (u64, u64) {
        let chosen = settings.of(PeerKind::Tor).unwrap();
        (chosen.restart_time.as_secs(), chosen.stale_time.as_secs())
    }

    #[test]
    fn a_peer_has_its_own_word_then_that_of_all_then_the_default() {
        let all = RestartSettings::parse(Some(&spec(Some(60), None))).unwrap();
        let own = RestartSettings::parse(Some(&spec(Some(600), None))).unwrap();
        assert_eq!(times(RestartSettings::default()), (120, 300));
        assert_eq!(times(all), (60, 300));
        assert_eq!(times(own.or(all)), (600, 600), "never less than the restart time");
        assert_eq!(times(RestartSettings::default().or(all)), (60, 300));
        let off = GracefulRestartSpec { enabled: Some(false), ..spec(None, None) };
        let off = RestartSettings::parse(Some(&off)).unwrap();
        assert_eq!(off.or(all).of(PeerKind::Mesh), None);
        let on = GracefulRestartSpec { enabled: Some(true), ..spec(None, Some(90)) };
        let on = RestartSettings::parse(Some(&on)).unwrap();
        assert_eq!(times(on.or(off)), (120, 120));
    }

    #[test]
    fn what_cannot_be_is_told_with_its_field() {
        for (restart, stale, field) in [
            (Some(0), None, "restartTimeSeconds"),
            (Some(4096), None, "restartTimeSeconds"),
            (None, Some(0), "staleTimeSeconds"),
            (Some(60), Some(59), "staleTimeSeconds"),
        ] {
            let faults = RestartSettings::parse(Some(&spec(restart, stale))).unwrap_err();
            let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
            assert_eq!(fields, [format!("spec.gracefulRestart.{field}")]);
        }
    }
}
