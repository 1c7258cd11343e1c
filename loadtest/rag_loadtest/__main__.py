"""Start of `rag-loadtest`."""

from gevent import monkey

monkey.patch_all()  # before anything is imported that uses sockets or TLS

from rag_loadtest.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
