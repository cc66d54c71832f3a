//! Binding the listeners, with errors that say what is in the way.

use crate::app::StartError;
use crate::config::HttpListen;
use std::{fs, io, net::SocketAddr, os::unix::fs::FileTypeExt as _, path::Path};
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Binds the address of agents and clients.
pub(crate) async fn tcp(address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address, "--listen").await
}

/// Binds the address of pages, metrics and health.
pub(crate) async fn http(wanted: HttpListen) -> Result<Option<TcpListener>, StartError> {
    match wanted {
        HttpListen::Off => Ok(None),
        HttpListen::At(address) => bind(address, "--http").await.map(Some),
        HttpListen::IfFree(address) => match bind(address, "--http").await {
            Err(error @ StartError::AddressInUse { .. }) => {
                tracing::warn!(%error, "no pages and no metrics");
                Ok(None)
            }
            bound => bound.map(Some),
        },
    }
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { address, flag },
        _ => StartError::Listen { what: address.to_string(), source },
    })
}

/// Binds `path`, taking the place of a socket that nobody answers on.
///
/// The data folder's lock is held by now, so a socket in it is stale for certain; one elsewhere is asked first.
pub(crate) async fn unix(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |source| StartError::Listen { what: path.display().to_string(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is no socket is in the way",
            )));
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(StartError::SocketInUse { path: path.to_owned() });
        }
        fs::remove_file(path).map_err(failed)?;
    }
    UnixListener::bind(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.sock");
        drop(unix(&path).await.unwrap());
        assert!(path.exists(), "a dropped listener leaves its socket behind");
        let live = unix(&path).await.unwrap();
        assert!(matches!(unix(&path).await, Err(StartError::SocketInUse { .. })));
        drop(live);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(matches!(unix(&path).await, Err(StartError::Listen { .. })));
    }

    #[tokio::test]
    async fn a_taken_address_is_named_with_the_way_out() {
        let listener = tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = tcp(address).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
        assert!(matches!(http(HttpListen::IfFree(address)).await, Ok(None)));
        let error = http(HttpListen::At(address)).await.unwrap_err().to_string();
        assert!(error.contains("--http"), "{error}");
    }
}
