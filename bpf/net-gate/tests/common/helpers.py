import errno, os, select, signal, socket, struct, sys, threading, time
signal.alarm(30)
def name(error): return errno.errorcode.get(error.errno, str(error))
def connect(host, port, timeout=15):
    return socket.create_connection((host, port), timeout)
def attempt(work):
    try: return work()
    except socket.gaierror as error: return 'gaierror %d' % error.errno
    except socket.timeout: return 'timeout'
    except OSError as error: return name(error)
def drain(s, most=1 << 20):
    data = b''
    while len(data) < most:
        part = s.recv(65536)
        if not part: break
        data += part
    return data
def talk(host, port, data=b''):
    def work():
        s = connect(host, port)
        if data: s.sendall(data)
        return drain(s)
    return attempt(work)
def get(host, port=80, header=None):
    return talk(host, port, b'GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' % (header or host).encode())
def hello(server_name=None, record=4000):
    ext = b'\0\x0d\0\x04\0\x02\x04\x03'
    if server_name is not None:
        n = server_name.encode()
        ext += struct.pack('>HHHBH', 0, len(n) + 5, len(n) + 3, 0, len(n)) + n
    body = b'\3\3' + b'\7' * 32 + b'\0\0\2\xc0\x2f\1\0' + struct.pack('>H', len(ext)) + ext
    message = b'\1\0' + struct.pack('>H', len(body)) + body
    return b''.join(b'\x16\3\1' + struct.pack('>H', len(message[i:i+record])) + message[i:i+record]
                    for i in range(0, len(message), record))
def tls(host, server_name=None, port=443):
    return talk(host, port, hello(server_name if server_name is not None else host))
def query(host, kind=1, ident=0x1234):
    labels = b''.join(bytes([len(l)]) + l.encode() for l in host.split('.'))
    return struct.pack('>HHHHHH', ident, 0x100, 1, 0, 0, 0) + labels + b'\0' + struct.pack('>HH', kind, 1)
def dns(packet):
    # Datagrams may be lost when many come at once: like every resolver, ask again.
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    for last in (False, False, False, True):
        s.sendto(packet, ('127.0.0.53', 53))
        try: return s.recv(4096)
        except socket.timeout:
            if last: raise
def rcode(answer): return answer[3] & 15
