from garrison.engines.install.package_sources import PackageSources, child_environment, sources_from


def test_what_pip_was_told_uv_is_told_too() -> None:
    environ = {
        "PIP_FIND_LINKS": "/wheels /more",
        "PIP_INDEX_URL": "mirror:/simple",
        "PIP_EXTRA_INDEX_URL": "extra:/a extra:/b",
        "PIP_CERT": "/ca.pem",
        "PIP_DEFAULT_TIMEOUT": "180",
        "PATH": "/bin",
    }
    made = child_environment(environ, sources_from(environ, find_links=["/mine"], extra_indexes=["extra:/mine"]))
    assert made["UV_FIND_LINKS"] == "/mine,/wheels,/more"
    assert made["PIP_FIND_LINKS"] == "/mine /wheels /more"
    assert made["UV_DEFAULT_INDEX"] == "mirror:/simple"
    assert made["UV_EXTRA_INDEX_URL"] == made["PIP_EXTRA_INDEX_URL"] == "extra:/mine extra:/a extra:/b"
    assert made["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert made["SSL_CERT_FILE"] == "/ca.pem"
    assert made["UV_HTTP_TIMEOUT"] == "180"
    assert made["PATH"] == "/bin"


def test_what_was_set_for_uv_is_kept() -> None:
    environ = {"PIP_INDEX_URL": "a:/", "UV_DEFAULT_INDEX": "b:/", "PIP_FIND_LINKS": "/p", "UV_FIND_LINKS": "/u"}
    made = child_environment(environ, sources_from(environ))
    assert made["UV_DEFAULT_INDEX"] == "b:/"
    assert made["UV_FIND_LINKS"] == "/p,/u"


def test_offline_names_no_index_at_all() -> None:
    made = child_environment({"PIP_INDEX_URL": "a:/"}, sources_from({"PIP_INDEX_URL": "a:/"}, offline=True))
    assert (made["PIP_NO_INDEX"], made["UV_OFFLINE"]) == ("1", "1")
    assert "UV_DEFAULT_INDEX" not in made
    assert sources_from({"PIP_NO_INDEX": "1"}).offline


def test_an_environment_that_is_active_is_left_out() -> None:
    made = child_environment({"VIRTUAL_ENV": "/v", "PYTHONPATH": "/p", "PIP_TARGET": "/t"}, PackageSources())
    assert not {"VIRTUAL_ENV", "PYTHONPATH", "PIP_TARGET"} & set(made)


def test_credentials_of_an_index_are_in_no_repr() -> None:
    sources = PackageSources(index="https://user:s3cret@mirror/simple", extra_indexes=("https://u:s3cret@x",))
    assert "s3cret" not in repr(sources)
    assert sources.names_any
    assert not PackageSources().names_any
