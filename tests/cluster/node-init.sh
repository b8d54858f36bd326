# First process of a node, inside its own mount, pid, uts, ipc and network namespaces: private copies of the places
# that kubelet and containerd write to, then containerd, kube-proxy and kubelet. The harness sets the variables.
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs run /run
mkdir /run/netns /run/lock
# What the node writes below /etc, /opt, /var/lib and /var/log stays in its own directory.
mkdir -p "$NODE_DIR"/lib "$NODE_DIR"/log "$NODE_DIR"/cni-bin /etc /opt
for place in etc opt; do
  mkdir -p "$NODE_DIR/$place/upper" "$NODE_DIR/$place/work"
  mount -t overlay -o "lowerdir=/$place,upperdir=$NODE_DIR/$place/upper,workdir=$NODE_DIR/$place/work" "$place" "/$place"
done
mkdir -p /etc/cni/net.d /opt/cni/bin
rm -f /etc/cni/net.d/*
mount --bind "$NODE_DIR/cni-bin" /opt/cni/bin
mount --bind "$NODE_DIR/lib" /var/lib
mount --bind "$NODE_DIR/log" /var/log
mkdir -p /var/lib/kubelet /var/log/pods
mount --make-rshared /
hostname "$NODE_NAME"
containerd -c "$NODE_DIR/containerd.toml" >"$NODE_DIR/containerd.log" 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.05; done
for image in $NODE_IMAGES; do ctr -n k8s.io images import "$image" >/dev/null; done
if [ "$NODE_PROXY" != none ]; then
  kube-proxy --kubeconfig "$CLUSTER_DIR/proxy.conf" --proxy-mode "$NODE_PROXY" --hostname-override "$NODE_NAME" \
    --cluster-cidr "$CLUSTER_CIDRS" --conntrack-max-per-core 0 >"$NODE_DIR/kube-proxy.log" 2>&1 &
fi
# As a service manager does: kubelet comes back.
while :; do
  kubelet --config "$NODE_DIR/kubelet.yaml" --kubeconfig "$CLUSTER_DIR/$NODE_NAME.conf" --hostname-override "$NODE_NAME" \
    --node-ip "$NODE_ADDRESSES" >>"$NODE_DIR/kubelet.log" 2>&1 || true
  sleep 1
done
