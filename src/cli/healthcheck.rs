//! `finishline healthcheck`: exit code 0 if the service on this machine is alive.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use url::Url;

use super::Failure;
use crate::{
    config::{ApiListen, Config},
    outbound::{Outbound, Permissions},
};

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(config: Config) -> Result<(), Failure> {
    let address = api_address(&config);
    let url: Url = format!("http://{address}/healthz").parse()?;
    let outbound = Outbound::new(Permissions::default(), &[])?;
    let answer = outbound.configured().get(url).timeout(TIMEOUT).send().await;
    match answer {
        Ok(response) if response.status().is_success() => Ok(()),
        _ => Err(anyhow::anyhow!("no healthy service answers at {address}").into()),
    }
}

/// The address at which this machine reaches the API.
pub(super) fn api_address(config: &Config) -> SocketAddr {
    let mut address = match config.api.listen {
        ApiListen::Address(address) => address,
        ApiListen::Same => config.callbacks.listen,
    };
    // Listening on every address includes the loopback one.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip([127, 0, 0, 1].into()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            address.set_ip(std::net::Ipv6Addr::LOCALHOST.into())
        }
        _ => {}
    }
    address
}
