//! What the gates of the loader share.
//!
//! A *gate* stands where an action of a sandbox can be decided (exec, file, network). It asks through [`Asker`],
//! reports through [`EventSink`], and knows which processes are meant by a [`Scope`]. None of these knows policy.

pub mod ask;
pub mod event;
pub mod re2;
pub mod scope;
pub mod sys;
pub mod who;
pub mod without;

pub use ask::{Asker, Inquiry, InquiryChannel, Outcome};
pub use clawsec_proto as pb;
pub use event::EventSink;
pub use scope::{Scope, SubjectScope};
pub use who::{Describe, FromProc};
pub use without::Without;
