//! The vhost-user wire: rings of frames in shared memory.
