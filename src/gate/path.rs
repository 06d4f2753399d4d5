//! The Route header fields of a request: which are ours, and what they say.
#![forbid(unsafe_code)]

use crate::sip::header::{Address, Name};
use crate::sip::message::Message;
use crate::sip::uri::Uri;
use crate::token::{Key, Leg, ROUTE_USER};
use std::ops::Range;

/// What the Route header fields, and the Request-URI of a strict router, say of the way of a request.
#[derive(Debug, Default)]
pub struct Path {
    /// The leg of the first Route (or Request-URI) of ours whose token verifies.
    pub leg: Option<Leg>,
    /// The Request-URI is a Record-Route of ours: a strict router put it there (RFC 3261 §16.4).
    pub strict: bool,
    /// The leading Route values of ours, all consecutive ones.
    pub ours: usize,
    /// A Route value that leads away: neither ours, nor a name, nor the address at which we were reached.
    pub foreign: bool,
    /// The last Route value: the Request-URI that a strict router moved there.
    pub last: Option<Range<usize>>,
}

impl Path {
    /// Reads the Routes of a request. A Route that cannot be read is foreign.
    pub fn read(message: &Message<'_>, key: &Key, is_here: impl Fn(&[u8]) -> bool) -> Self {
        let mut path = Self::default();
        if let Some(leg) = message.uri().and_then(|uri| own(uri, key)) {
            path.leg = Some(leg);
            path.strict = true;
        }
        let mut leading = true;
        for value in message.values(Name::Route) {
            let Ok(value) = value else {
                path.foreign = true;
                break;
            };
            let Ok(route) = Address::parse(message.at(value.clone())) else {
                path.foreign = true;
                break;
            };
            match own(&route.uri, key) {
                Some(leg) => {
                    path.ours += usize::from(leading);
                    path.leg.get_or_insert(leg);
                }
                None => {
                    leading = false;
                    path.foreign |=
                        !(route.uri.is_sip() && is_here(route.uri.host) && route.uri.param(b"maddr").is_none());
                }
            }
            path.last = Some(value);
        }
        path
    }
}

/// The leg in a Record-Route URI of ours.
fn own(uri: &Uri<'_>, key: &Key) -> Option<Leg> {
    Leg::open(key, uri.user?.strip_prefix(ROUTE_USER)?)
}
