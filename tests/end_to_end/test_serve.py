"""A teacher behind a real server says what the same model says in this process."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from configs.decoding import Decoding
from configs.endpoint import Endpoint
from teachers.text.huggingface import HuggingFaceWriter
from teachers.text.openai import EndpointWriter
from tests.helpers.writers import END, prompts, tokenizer, writer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model whose chat is the text itself."""
    folder = tmp_path_factory.mktemp("served")
    writer("llama", seed=4, ends=(END,)).save_pretrained(folder)
    words = tokenizer(ends=False)
    words.chat_template = "{{ messages[-1]['content'] }}"
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(sys.executable).with_name("transformers")
    command = [str(script), "serve", str(folder), "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = folder / "serve.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    base = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{base}/health") as answer:
                assert json.load(answer)["status"] == "ok"
            break
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, log.read_text()[-2000:]
            time.sleep(0.1)
    yield f"{base}/v1"
    server.terminate()
    server.wait()


def test_equals_the_model_in_this_process(folder, url):
    texts = prompts(6)
    endpoint = Endpoint(kind="openai", model=str(folder), url=url, max_tokens=10, retries=2, concurrency=2)
    served = EndpointWriter(endpoint)
    served.check()
    found = dict(served.generate(texts, Decoding(beams=1)))
    here = HuggingFaceWriter([writer("llama", seed=4, ends=(END,))], tokenizer(ends=False), "x")
    expected = dict(here.generate(texts, Decoding(beams=1, max_tokens=10)))
    for place, wanted in expected.items():
        assert found[place].texts[0].text.split() == wanted.texts[0].text.split()
        assert found[place].texts[0].ended == wanted.texts[0].ended
    assert served.usage.requests == 6 and served.usage.tokens_out > 0
    served._client.close()
