import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.fleet.manifest.address import address, canonical_url

FORMS = {
    "as it is": ({"base_url": "http://localhost:8000"}, "http://localhost:8000"),
    "slash": ({"base_url": "http://h:8000/"}, "http://h:8000"),
    "/v1": ({"base_url": "http://h:8000/v1"}, "http://h:8000"),
    "/v1 and slash": ({"base_url": "http://h:8000/v1/"}, "http://h:8000"),
    "/v1 twice": ({"base_url": "http://h:8000/v1/v1"}, "http://h:8000"),
    "prefix": ({"base_url": "https://h/vllm/a/v1"}, "https://h/vllm/a"),
    "no port": ({"base_url": "http://h"}, "http://h"),
    "default port": ({"base_url": "http://h:80"}, "http://h"),
    "default port of https": ({"base_url": "https://h:443/x"}, "https://h/x"),
    "https on 80": ({"base_url": "https://h:80"}, "https://h:80"),
    "capitals": ({"base_url": "HTTP://Node.LAN:8000/Path"}, "http://node.lan:8000/Path"),
    "IPv6": ({"base_url": "http://[2001:DB8:0::1]:8000/v1"}, "http://[2001:db8::1]:8000"),
    "host": ({"host": "10.0.0.2"}, "http://10.0.0.2:8000"),
    "host and port": ({"host": "node", "port": 9000}, "http://node:9000"),
    "host, port and scheme": ({"host": "node", "port": 443, "scheme": "https"}, "https://node"),
    "host is IPv6": ({"host": "::1"}, "http://[::1]:8000"),
    "host is IPv6 in brackets": ({"host": "[::1]", "port": 1}, "http://[::1]:1"),
    "host with a zone": ({"host": "fe80::1%eth0"}, "http://[fe80::1%eth0]:8000"),
}


@pytest.mark.parametrize(("given", "url"), FORMS.values(), ids=FORMS)
def test_forms(given, url):
    assert address(**given) == url


REFUSED = {
    "nothing": ({}, "missing address"),
    "both": ({"base_url": "http://h", "host": "h"}, "give either"),
    "both, by the port": ({"base_url": "http://h", "port": 1}, "give either"),
    "another scheme": ({"base_url": "ftp://h"}, "not a URL"),
    "no scheme": ({"base_url": "localhost:8000"}, "not a URL"),
    "no host": ({"base_url": "http://"}, "not a URL"),
    "port 0": ({"base_url": "http://h:0"}, "not a URL"),
    "port too high": ({"base_url": "http://h:70000"}, "not a URL"),
    "port that is none": ({"base_url": "http://h:x"}, "not a URL"),
    "half an IPv6": ({"base_url": "http://[::1"}, "not a URL"),
    "white space": ({"base_url": "http://h /x"}, "not a URL"),
    "a password": ({"base_url": "http://me:sesame@h"}, "api_key"),
    "a user": ({"base_url": "http://sesame@h"}, "api_key"),
    "a query": ({"base_url": "http://h?key=sesame"}, "cannot contain"),
    "an empty query": ({"base_url": "http://h?"}, "cannot contain"),
    "a fragment": ({"base_url": "http://h/#sesame"}, "cannot contain"),
    "a host with a slash": ({"host": "h/x"}, "neither a name nor an address"),
    "a host with a port": ({"host": "h:8000"}, "neither a name nor an address"),
    "a host with a user": ({"host": "sesame@h"}, "neither a name nor an address"),
    "a zone with a slash": ({"host": "fe80::1%/x"}, "neither a name nor an address"),
    "letters outside ASCII": ({"host": "münchen"}, "neither a name nor an address"),
}


@pytest.mark.parametrize(("given", "text"), REFUSED.values(), ids=REFUSED)
def test_refused_without_repeating_it(given, text):
    with pytest.raises(ValueError, match=text) as caught:
        address(**given)
    assert "sesame" not in str(caught.value)


@given(st.text() | st.from_regex(r"https?://[\[\]a-z0-9.:%@]{1,20}(/[a-z0-9.%/]{0,10})?(/v1/?){0,2}", fullmatch=True))
def test_canonical_is_canonical(text):
    try:
        url = canonical_url(text)
    except ValueError:
        return
    assert canonical_url(url) == url
    assert canonical_url(url + "/v1/") == url
