use super::*;

/// As for a port about whose protocol no row says anything.
fn read_at(bytes: &[u8], port: u16) -> Reading {
    read(bytes, Care::of(port, false))
}

/// A ClientHello as a TLS 1.2 client writes it, cut into records of at most `record` bytes.
fn client_hello(server_name: Option<&str>, record: usize) -> Vec<u8> {
    let mut extensions = vec![0, 13, 0, 4, 0, 2, 4, 3];
    if let Some(name) = server_name {
        let length = u16::try_from(name.len()).expect("a short name");
        extensions.extend([0, 0]);
        extensions.extend((length + 5).to_be_bytes());
        extensions.extend((length + 3).to_be_bytes());
        extensions.push(0);
        extensions.extend(length.to_be_bytes());
        extensions.extend(name.as_bytes());
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    message.extend(body);
    let mut bytes = Vec::new();
    for part in message.chunks(record) {
        bytes.extend([0x16, 3, 1]);
        bytes.extend(u16::try_from(part.len()).expect("short").to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

fn tls(name: Option<&str>) -> Reading {
    Reading::Seen(Observation::Tls(name.map(str::to_owned)))
}

fn http(name: Option<&str>) -> Reading {
    Reading::Seen(Observation::Http(name.map(str::to_owned)))
}

#[test]
fn the_server_name_is_read_whatever_the_records_and_however_little_has_come() {
    for record in [1, 3, 50, 4000] {
        let hello = client_hello(Some("API.Example.com"), record);
        for end in 0..hello.len() {
            assert_eq!(read_at(&hello[..end], 443), Reading::More, "{record} {end}");
        }
        assert_eq!(read_at(&hello, 443), tls(Some("api.example.com")), "{record}");
    }
    let mut more = client_hello(Some("a.com"), 4000);
    more.extend([0x17, 3, 3, 0, 1, 9]);
    assert_eq!(read_at(&more, 443), tls(Some("a.com")), "early data follows");
    assert_eq!(read_at(&client_hello(None, 4000), 443), tls(None));
}

#[test]
fn a_hello_that_cannot_be_read_is_refused_on_every_port() {
    let mut broken = client_hello(Some("a.com"), 4000);
    broken[45] = 0xff;
    for port in [443, 9000] {
        assert!(matches!(read_at(&broken, port), Reading::Bad(Form::Tls, _)), "{port}");
    }
    let long = [&[0x16, 3, 1, 0x3f, 0, 1, 0, 0x50, 0][..], &vec![0; 16_124]].concat();
    assert!(matches!(read_at(&long, 443), Reading::Bad(Form::Tls, _)));
    let slow = [&[0x16, 3, 1, 0x40, 0][..], &vec![1; LONGEST - 6]].concat();
    assert_eq!(read_at(&slow, 443), Reading::More);
    assert!(matches!(read_at(&[&slow[..], &[0]].concat(), 443), Reading::Bad(Form::Tls, _)));
}

#[test]
fn the_host_of_a_request_is_read_without_port_case_and_final_dot() {
    for line in ["Host: A.com", "host:a.com.", "HOST: a.com:8080"] {
        let request = format!("GET / HTTP/1.1\r\n{line}\r\n\r\n");
        for end in 0..request.len() {
            assert_eq!(read_at(&request.as_bytes()[..end], 80), Reading::More, "{end}");
        }
        assert_eq!(read_at(request.as_bytes(), 80), http(Some("a.com")), "{line}");
    }
    assert_eq!(read_at(b"GET / HTTP/1.0\r\n\r\n", 80), http(None));
    assert_eq!(read_at(b"GET http://a.com:80/x HTTP/1.1\r\nHost: a.com\r\n\r\n", 80), http(Some("a.com")));
    assert_eq!(read_at(b"CONNECT b.com:443 HTTP/1.1\r\nHost: b.com:443\r\n\r\n", 80), http(Some("b.com")));
    assert_eq!(read_at(b"\r\nGET / HTTP/1.1\r\nHost: a.com\r\n\r\n", 80), http(Some("a.com")));
}

#[test]
fn a_request_that_names_two_hosts_is_refused() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a.com\r\nHost: b.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.com\r\nHost: a.com\r\n\r\n",
        "GET http://b.com/ HTTP/1.1\r\nHost: a.com\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.com, b.com\r\n\r\n",
        "GET http://a.com@b.com/ HTTP/1.1\r\n\r\n",
    ] {
        assert!(matches!(read_at(request.as_bytes(), 80), Reading::Bad(Form::Http, _)), "{request:?}");
    }
}

#[test]
fn on_web_ports_what_is_neither_tls_nor_http_is_refused_and_elsewhere_it_is_not() {
    for bytes in [
        &b"get / http/1.1\r\nhost: b.com\r\n\r\n"[..],
        b"GET / HTTP/1.1\nHost : b.com\n\n",
        b"\0\0\0",
        b"\x80\x2e\x01",
    ] {
        for port in [80, 443, 8080, 8443] {
            assert!(matches!(read_at(bytes, port), Reading::Bad(_, _)), "{port} {bytes:?}");
        }
        assert_eq!(read_at(bytes, 9418), Reading::Seen(Observation::Other));
    }
    assert_eq!(read_at(b"SSH-2.0-OpenSSH\r\n", 443), Reading::Seen(Observation::Other));
    assert_eq!(read_at(b"SS", 443), Reading::More);
}

#[test]
fn where_a_row_looks_at_protocols_nothing_that_passes_for_http_is_called_other() {
    let close = |bytes: &[u8]| read(bytes, Care::of(9418, true));
    for bytes in [
        &b"post /x HTTP/1.1\r\n\r\n"[..],
        b"PoST /x HTTP/1.1\r\n\r\n",
        b"POST\x0b/x HTTP/1.1\r\n\r\n",
        b"POST /x\r\n\r\n",
        b"GET / HTTP/1.1\nHost : b.com\n\n",
        b"\r\nget / http/1.1\r\n",
        b" POST /x HTTP/1.1\r\n\r\n",
        b"\r\n POST /x HTTP/1.1\r\n\r\n",
        b"\x1cPOST /x HTTP/1.1\r\n\r\n",
        b"POST /x?\0 HTTP/1.1\r\n\r\n",
    ] {
        assert!(matches!(close(bytes), Reading::Bad(Form::Http, _)), "{bytes:?}");
        assert_eq!(read_at(bytes, 9418), Reading::Seen(Observation::Other), "{bytes:?}");
    }
    assert_eq!(close(b"post /x"), Reading::More);
    for bytes in
        [&b"0032git-upload-pack"[..], b"AMQP\0\0\x09\x01", b"\x80\x2e\x02", b"EHLO x\r\n", b"SSH-2.0-x\r\n"]
    {
        assert_eq!(close(bytes), Reading::Seen(Observation::Other), "{bytes:?}");
    }
    assert!(matches!(close(&vec![b'a'; LONGEST]), Reading::Bad(_, _)));
}

#[test]
fn where_a_row_looks_at_protocols_a_hello_of_another_form_is_not_called_other() {
    for bytes in
        [&b"\x80\x2e\x01\x03\x03"[..], b"\x16\x03\x01\0\0\x16\x03\x01", b"\x15\x03\x01\0\x02\x01\x5a"]
    {
        assert!(matches!(read(bytes, Care::of(9418, true)), Reading::Bad(Form::Tls, _)), "{bytes:?}");
        assert_eq!(read_at(bytes, 9418), Reading::Seen(Observation::Other), "{bytes:?}");
        assert!(matches!(read_at(bytes, 443), Reading::Bad(_, _)), "{bytes:?}");
    }
}

#[test]
fn http_2_without_tls_is_told_from_http_1() {
    assert_eq!(read_at(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 80), Reading::Seen(Observation::Http2));
}

#[test]
fn no_bytes_whatever_make_it_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seeds =
        [client_hello(Some("a.com"), 100), b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n".to_vec(), vec![0; 64]];
    for round in 0..30_000 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=random() % 4 {
            let at = usize::try_from(random()).expect("64 bits") % bytes.len();
            bytes[at] = random().to_le_bytes()[0];
        }
        bytes.truncate(1 + usize::try_from(random()).expect("64 bits") % bytes.len());
        let port = [80, 443, 22][round % 3];
        if let Reading::Seen(Observation::Tls(Some(name)) | Observation::Http(Some(name))) =
            read(&bytes, Care::of(port, round % 2 == 0))
        {
            assert!(name.len() <= 253);
        }
    }
}
