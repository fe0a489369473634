//! What guests ask of the stack's interfaces by ioctl(2).

use std::io;

use netshunt_lkl::Kernel;
use netshunt_notify::Notification;

use super::Reply;
use crate::calls::{Asked, errno};

/// A question about the stack's interfaces.
#[derive(Debug)]
pub(crate) struct Interfaces {
    pub(crate) notification: Notification,
    /// Whether by an AF_INET socket: others do not tell addresses.
    pub(crate) inet: bool,
    pub(crate) asked: Asked,
}

impl Interfaces {
    pub(super) fn answer(self, kernel: &Kernel) -> Reply {
        let pieces = match self.ask(kernel) {
            Ok(bytes) => Ok(self.asked.answer(&bytes)),
            Err(error) => Err(errno(&error)),
        };
        Reply::Write { notification: self.notification, pieces, value: 0 }
    }

    /// By a socket of an ordinary user's that lives as long as the question.
    fn ask(&self, kernel: &Kernel) -> io::Result<Vec<u8>> {
        let domain = if self.inet { libc::AF_INET } else { libc::AF_INET6 };
        let socket = kernel.user_socket(domain, libc::SOCK_DGRAM, 0, 0)?;
        let result = match &self.asked {
            Asked::Driver { argument } => {
                let found = kernel.ioctl(socket, libc::SIOCGIFINDEX as u32, &mut argument.clone());
                found.and(Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)))
            }
            Asked::One { request, argument, .. } => {
                let mut argument = *argument;
                kernel.ioctl(socket, *request, &mut argument).map(|()| argument.to_vec())
            }
            Asked::All { .. } => kernel.interface_records(socket),
        };
        kernel.close(socket);
        result
    }
}
