//! Dialogs (RFC 3261 §12): who, where and through which route set.

use super::message::{Message, param, uri_of, uri_param};

/// One dialog, seen from one end.
#[derive(Clone, Debug)]
pub struct Dialog {
    /// The Call-ID.
    pub call_id: String,
    /// From of our requests, with our tag.
    pub local: String,
    /// To of our requests, with the other's tag.
    pub remote: String,
    /// The other's Contact: the Request-URI.
    pub target: String,
    /// The Route values, in the order to send.
    pub routes: Vec<String>,
    /// The number of our last request.
    pub cseq: u32,
}

impl Dialog {
    /// The caller's (subscriber's) view, from its request and the response (§12.1.2: Record-Route reversed).
    pub fn uac(request: &Message, response: &Message) -> Option<Self> {
        let routes = response.values("Record-Route").into_iter().rev().map(str::to_owned).collect();
        Some(Self {
            call_id: request.get("Call-ID")?.to_owned(),
            local: request.get("From")?.to_owned(),
            remote: response.get("To")?.to_owned(),
            target: uri_of(response.values("Contact").first()?).to_owned(),
            routes,
            cseq: request.cseq(),
        })
    }

    /// The callee's view, from the request and the tag it answers with (§12.1.1: Record-Route in order).
    pub fn uas(request: &Message, tag: &str) -> Option<Self> {
        Some(Self {
            call_id: request.get("Call-ID")?.to_owned(),
            local: format!("{};tag={tag}", request.get("To")?),
            remote: request.get("From")?.to_owned(),
            target: uri_of(request.values("Contact").first()?).to_owned(),
            routes: request.values("Record-Route").into_iter().map(str::to_owned).collect(),
            cseq: 0,
        })
    }

    /// Whether a request from the other side is in this dialog: both tags agree (§12.2.2).
    pub fn owns(&self, request: &Message) -> bool {
        request.tag("To") == param(&self.local, "tag") && request.tag("From") == param(&self.remote, "tag")
    }

    /// The next request of this dialog; ACK and CANCEL keep the number they are told (§12.2.1.1).
    pub fn request(&mut self, method: &str, cseq: Option<u32>, strict: bool) -> Message {
        let number = cseq.unwrap_or_else(|| {
            self.cseq += 1;
            self.cseq
        });
        let mut routes = self.routes.clone();
        let mut uri = self.target.clone();
        let loose = routes.first().is_none_or(|route| uri_param(uri_of(route), "lr").is_some());
        // A strict router (ourselves, if told to be one) takes the first Route as Request-URI and puts the target last.
        if (strict || !loose) && !routes.is_empty() {
            let first = routes.remove(0);
            routes.push(format!("<{uri}>"));
            uri = uri_of(&first).to_owned();
        }
        let mut request = Message::request(method, &uri);
        for route in &routes {
            request.add("Route", route);
        }
        request.add("Max-Forwards", "70").add("From", &self.local).add("To", &self.remote);
        request.add("Call-ID", &self.call_id).add("CSeq", &format!("{number} {method}"));
        request
    }

    /// The other side's Contact may move with each of its requests and answers (§12.2.1.2, §12.2.2).
    pub fn refresh(&mut self, message: &Message) {
        if let Some(contact) = message.values("Contact").first() {
            uri_of(contact).clone_into(&mut self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Message {
        let mut request = Message::request("INVITE", "sip:600@k.test");
        request.add("From", "<sip:101@k.test>;tag=a").add("To", "<sip:600@k.test>").add("Call-ID", "c");
        request.add("CSeq", "3 INVITE").add("Contact", "<sip:101@10.0.0.1:9>");
        request.add("Record-Route", "<sip:one;lr>, <sip:two;lr>");
        request
    }

    #[test]
    fn route_sets_are_in_the_right_order_at_both_ends() {
        let request = invite();
        let mut response = Message::response(&request, 200, "OK");
        response.set("To", "<sip:600@k.test>;tag=b").add("Contact", "<sip:127.0.0.1:5080>");
        let mut caller = Dialog::uac(&request, &response).unwrap();
        let bye = caller.request("BYE", None, false);
        assert_eq!((bye.uri(), bye.cseq()), ("sip:127.0.0.1:5080", 4));
        assert_eq!(bye.values("Route"), ["<sip:two;lr>", "<sip:one;lr>"]);
        let mut callee = Dialog::uas(&request, "b").unwrap();
        assert!(callee.owns(&bye));
        let back = callee.request("BYE", None, false);
        assert_eq!((back.uri(), back.get("To")), ("sip:101@10.0.0.1:9", Some("<sip:101@k.test>;tag=a")));
        assert_eq!(back.values("Route"), ["<sip:one;lr>", "<sip:two;lr>"]);
        assert!(caller.owns(&back));
        assert!(!callee.owns(&back));
    }

    #[test]
    fn a_strict_router_puts_the_route_into_the_request_uri() {
        let mut callee = Dialog::uas(&invite(), "b").unwrap();
        let bye = callee.request("BYE", None, true);
        assert_eq!(bye.uri(), "sip:one;lr");
        assert_eq!(bye.values("Route"), ["<sip:two;lr>", "<sip:101@10.0.0.1:9>"]);
    }
}
