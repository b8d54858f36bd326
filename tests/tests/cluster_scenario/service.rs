//! Services are judged on the real client and the real backend, in both modes of kube-proxy.

use crate::cluster;
use tests::cluster::service_scenario;

#[test]
fn services_are_judged_on_client_and_backend_with_kube_proxy_in_iptables_mode() -> anyhow::Result<()>
{
    let cluster = cluster()?;
    service_scenario::run(&cluster)
}
