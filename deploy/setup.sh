# Sourced by deploy/try, tests/run and .ci/run: what a fresh Debian/Ubuntu machine lacks. Needs root.

# Programs that the lab and the tests use, and the packages that bring them.
install_packages() {
  local missing=() pair
  for pair in ip:iproute2 bird:bird2 vtysh:frr nft:nftables conntrack:conntrack cc:build-essential curl:curl; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  echo "==> installing ${missing[*]}" >&2
  # The routers are started by the lab in namespaces of their own, never as services of this host.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod +x "$policy"; made=1; fi
  local status=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 || status=$?
  [ -z "$made" ] || rm -f "$policy"
  # Nor after the next boot: what was not there before must not begin to route by itself.
  local unit
  for unit in "${missing[@]}"; do
    case "$unit" in
      bird2) systemctl disable --quiet bird.service 2>/dev/null || true ;;
      frr) systemctl disable --quiet frr.service 2>/dev/null || true ;;
    esac
  done
  return "$status"
}

# A Rust toolchain, by the official installer, where there is none.
install_rust() {
  [ -f "${CARGO_HOME:-$HOME/.cargo}/env" ] && . "${CARGO_HOME:-$HOME/.cargo}/env"
  command -v cargo >/dev/null && return 0
  echo "==> installing Rust with rustup" >&2
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt >&2
  . "${CARGO_HOME:-$HOME/.cargo}/env"
}
