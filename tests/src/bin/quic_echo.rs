//! QUIC. `KEY CERTIFICATE serve PORT`: sends back what it gets on each stream. `KEY CERTIFICATE check IP PORT`: opens
//! connections and streams at once, and compares.

use std::env;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::pem::PemObject;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use tokio::task::JoinSet;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const CONNECTIONS: usize = 4;
const STREAMS: usize = 16;
const SIZE: usize = 200_000;

#[tokio::main]
async fn main() -> Outcome {
    let words: Vec<String> = env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [key, certificate, "serve", port] => {
            let identity = (PrivateKeyDer::from_pem_file(key)?, CertificateDer::from_pem_file(certificate)?);
            serve(identity, port.parse()?).await
        }
        [_, certificate, "check", ip, port] => {
            let server = CertificateDer::from_pem_file(certificate)?;
            check(server, SocketAddr::new(ip.parse()?, port.parse()?)).await
        }
        _ => Err("KEY CERTIFICATE, and serve PORT or check IP PORT".into()),
    }
}

async fn serve(identity: (PrivateKeyDer<'static>, CertificateDer<'static>), port: u16) -> Outcome {
    let configuration = ServerConfig::with_single_cert(vec![identity.1], identity.0)?;
    let endpoint = Endpoint::server(configuration, (Ipv4Addr::UNSPECIFIED, port).into())?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            while let Ok((mut to, mut from)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    let all = from.read_to_end(2 * SIZE).await?;
                    to.write_all(&all).await?;
                    to.finish()?;
                    Outcome::Ok(())
                });
            }
            Outcome::Ok(())
        });
    }
    Ok(())
}

async fn check(server: CertificateDer<'static>, to: SocketAddr) -> Outcome {
    let mut endpoint = Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into())?;
    let mut trusted = RootCertStore::empty();
    trusted.add(server)?;
    endpoint.set_default_client_config(ClientConfig::with_root_certificates(Arc::new(trusted))?);
    let mut all = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let connection = endpoint.connect(to, "netshunt.test")?.await?;
        assert_eq!(connection.remote_address(), to);
        for number in 0..STREAMS {
            all.spawn(once(connection.clone(), number));
        }
    }
    while let Some(one) = all.join_next().await {
        one??;
    }
    endpoint.close(0_u32.into(), b"done");
    endpoint.wait_idle().await;
    println!("every byte came back");
    Ok(())
}

async fn once(connection: Connection, number: usize) -> Outcome {
    let sent: Vec<u8> = (0..SIZE).map(|at| (at * (number + 1) % 251) as u8).collect();
    let (mut to, mut from) = connection.open_bi().await?;
    to.write_all(&sent).await?;
    to.finish()?;
    let back = from.read_to_end(2 * SIZE).await?;
    if back == sent { Ok(()) } else { Err(format!("{number}: {} bytes of {SIZE}", back.len()).into()) }
}
