# Sourced by deploy/try, tests/run and .ci/run: what a fresh Debian/Ubuntu machine lacks. Needs root.

# Programs that the lab and the tests use, and the packages that bring them.
install_packages() {
  local missing=() pair
  for pair in ip:iproute2 bird:bird2 vtysh:frr nft:nftables conntrack:conntrack cc:build-essential curl:curl \
    runc:runc iptables:iptables openssl:openssl jq:jq unzip:unzip bash-static:bash-static \
    /usr/lib/cni/host-local:containernetworking-plugins promtool:prometheus; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  echo "==> installing ${missing[*]}" >&2
  # The routers are started by the lab in namespaces of their own, never as services of this host; Prometheus is not started.
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
      # For promtool alone.
      prometheus) systemctl disable --quiet prometheus.service 2>/dev/null || true ;;
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

# A Go toolchain for the programs of the tests' clusters, where there is none or one that cannot fetch a newer one: the
# official archive, from where the Go modules come from.
install_go() {
  local version arch base home
  version=$(sed -n 's/^go //p' tests/cluster/go/kubernetes/go.mod)
  home="${XDG_CACHE_HOME:-$HOME/.cache}/rampart-tests/go$version"
  [ -x "$home/bin/go" ] && PATH="$home/bin:$PATH"
  export PATH
  # From 1.21 on, `go` fetches what go.mod asks for by itself.
  if command -v go >/dev/null && [ "$(printf '%s\n' go1.21 "$(go env GOVERSION)" | sort -V | head -1)" = go1.21 ]; then return 0; fi
  case "$(uname -m)" in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) echo "no Go toolchain for $(uname -m)" >&2; return 1 ;; esac
  base="${GOPROXY:-https://proxy.golang.org}"; base="${base%%[,|]*}"
  echo "==> installing Go $version" >&2
  local work; work=$(mktemp -d)
  curl -sSf -o "$work/go.zip" "$base/golang.org/toolchain/@v/v0.0.1-go$version.linux-$arch.zip" || { rm -rf "$work"; return 1; }
  unzip -q "$work/go.zip" -d "$work"
  # The archive format has no modes.
  chmod +x "$work"/golang.org/toolchain@*/bin/* "$work"/golang.org/toolchain@*/pkg/tool/*/*
  mkdir -p "${home%/*}"; rm -rf "$home"; mv "$work"/golang.org/toolchain@* "$home"; rm -rf "$work"
  PATH="$home/bin:$PATH"
}
