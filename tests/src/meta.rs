//! Playing Meta: webhook bodies as it writes them, signed, posted, and sent again until answered 200.

pub mod own;
pub mod payload;
pub mod sender;

pub use payload::{Number, change, entry, webhook};
pub use sender::{Answer, Sender, sign};
