#!/usr/bin/env python3
"""What image files say about their origin, read by other programs: XMP by Pillow, C2PA manifests by the Content Authenticity Initiative's
own library.

    provenance_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import contextlib
import hashlib
import io
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import xml.etree.ElementTree

import c2pa
import numpy
from PIL import Image

from cluster import Cluster
from models import TINY, checkpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED, COMPOSITE = TYPES + "trainedAlgorithmicMedia", TYPES + "compositeWithTrainedAlgorithmicMedia"
FORMATS = ("png", "jpeg", "webp")
SIGNER = "keyUsage=critical,digitalSignature\nextendedKeyUsage=emailProtection\nbasicConstraints=critical,CA:FALSE\n"
AUTHORITY = "keyUsage=critical,keyCertSign\nbasicConstraints=critical,CA:TRUE\n"


# Certificates


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def certificate(folder, name, issuer=None, extensions=SIGNER, days=30, curve="P-256"):
    """Makes `name.key` and `name.pem`, by `issuer` or by itself; `name.chain` has the issuer's behind it."""
    key, request, file, text = (folder / f"{name}.{suffix}" for suffix in ("key", "csr", "pem", "cnf"))
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-out", key)
    key.chmod(0o600)
    own = "subjectKeyIdentifier=hash\n" + extensions
    text.write_text(f"[req]\ndistinguished_name=name\n[name]\n[own]\n{own}authorityKeyIdentifier=keyid\n[root]\n{own}")
    subject = ["-config", text, "-key", key, "-subj", f"/O=Tests/CN={name}"]
    if issuer is None:
        openssl("req", "-x509", "-new", *subject, "-extensions", "root", "-days", days, "-out", file)
        return
    openssl("req", "-new", *subject, "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key", "-CAcreateserial",
            "-days", days, "-sha256", "-extfile", text, "-extensions", "own", "-out", file)
    (folder / f"{name}.chain").write_text(file.read_text() + (folder / f"{issuer}.pem").read_text())


@contextlib.contextmanager
def certificates():
    """A folder with a root, an issuer and a signer."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        certificate(folder, "root", extensions=AUTHORITY)
        certificate(folder, "issuer", "root", AUTHORITY)
        certificate(folder, "signer", "issuer")
        yield folder


def settings(folder, chain="signer.chain", key="signer.key"):
    return {"provenance-certificate-file": folder / chain, "provenance-private-key-file": folder / key}


# Images


def data_url(data):
    return f"data:{Image.MIME[Image.open(io.BytesIO(data)).format]};base64," + base64.b64encode(data).decode()


def submit(cluster, **fields):
    """The name of a new job, which has ended."""
    body = {"prompt": "a red circle", "seed": 11, "steps": 3, "true_cfg_scale": 3, **fields}
    call = urllib.request.Request(f"{cluster.url}/v1/jobs", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(call, timeout=60) as response:
        job = json.load(response)["id"]
    ended = lambda: cluster.get(f"/v1/jobs/{job}")[1]["status"] in ("succeeded", "failed", "cancelled")
    cluster.wait(ended, "done")
    assert cluster.get(f"/v1/jobs/{job}")[1]["status"] == "succeeded", cluster.get(f"/v1/jobs/{job}")
    return job


def fetch(cluster, job, query=""):
    with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/result{query}", timeout=60) as response:
        return response.read()


def drawn(cluster, **fields):
    return fetch(cluster, submit(cluster, **fields))


def pixels(data):
    return numpy.asarray(Image.open(io.BytesIO(data)))


def xmp(data):
    """The properties of the XMP packet that Pillow finds; None: there is none."""
    info = Image.open(io.BytesIO(data)).info
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if packet is None:
        return None
    if isinstance(packet, bytes):
        packet = packet.decode()
    description = xml.etree.ElementTree.fromstring(packet).find(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    return description.attrib


def source_type(data):
    properties = xmp(data)
    return properties and properties["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]


# Manifests


class Report:
    """What the library says of a file's manifest."""

    def __init__(self, data, anchors=None):
        media_type = Image.MIME[Image.open(io.BytesIO(data)).format]
        context = c2pa.Context.from_dict({"trust": {"trust_anchors": anchors.read_text()}} if anchors else {})
        reader = c2pa.Reader(media_type, io.BytesIO(data), context=context)
        self.state, self.report = reader.get_validation_state(), json.loads(reader.json())
        self.manifest = self.report["manifests"][self.report["active_manifest"]]
        self.codes = {kind: [status["code"] for status in self.report["validation_results"]["activeManifest"][kind]]
                      for kind in ("success", "informational", "failure")}
        self.assertions = {assertion["label"]: assertion["data"] for assertion in self.manifest["assertions"]}
        self.actions = self.assertions["c2pa.actions.v2"]["actions"]
        self.ingredients = self.manifest.get("ingredients", [])

    def check_trusted(self):
        assert self.state == "Trusted" and not self.codes["failure"], self.report
        for code in ("claimSignature.validated", "claimSignature.insideValidity", "signingCredential.trusted", "assertion.dataHash.match"):
            assert code in self.codes["success"], self.codes
        assert self.manifest["claim_version"] == 2, self.manifest
        generator = self.manifest["claim_generator_info"][0]
        assert generator["name"] == "qwen-image-cluster" and generator["version"], generator
        assert self.manifest["signature_info"]["alg"] == "Es256" and self.manifest["signature_info"]["common_name"] == "signer"


def has_manifest(data):
    try:
        Report(data)
    except c2pa.C2paError as error:
        assert "ManifestNotFound" in str(error), error
        return False
    return True


def changed(data):
    """The file with one other byte in what stands for its pixels, which decoders still read."""
    names = {"PNG": b"IDAT", "JPEG": b"\xff\xda", "WEBP": b"VP8"}
    start = data.rindex(names[Image.open(io.BytesIO(data)).format]) if not data.startswith(b"RIFF") else data.index(b"VP8L")
    place = start + 40
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]


# Tests


def test_files_of_all_formats_say_what_made_them():
    with Cluster(BINARIES, NANO) as cluster:
        for name in FORMATS:
            image = drawn(cluster, output_format=name)
            assert image == drawn(cluster, output_format=name), f"{name}: equal requests, other bytes"
            assert source_type(image) == TRAINED and not has_manifest(image)
            edited = drawn(cluster, output_format=name, image=data_url(image), prompt="make the circle blue")
            assert source_type(edited) == COMPOSITE, xmp(edited)
            varied = drawn(cluster, output_format=name, image=data_url(image), strength=0.5)
            assert source_type(varied) == COMPOSITE, xmp(varied)
            # One process writes the same bytes, and has the same switch.
            path, flags = cluster.folder / f"local.{name}", {"prompt": "a red circle", "seed": 11, "steps": 3, "true_cfg_scale": 3}
            assert cluster.local(path, **flags).returncode == 0
            assert path.read_bytes() == image, name
            command = [BINARIES / "qwen-image", "local", "--model", NANO, "--precision", cluster.precision, "--output", path,
                       "--no-digital-source-type", *(str(x) for flag, value in flags.items() for x in ("--" + flag.replace("_", "-"), value))]
            subprocess.run(command, check=True, capture_output=True)
            assert xmp(path.read_bytes()) is None and (pixels(path.read_bytes()) == pixels(image)).all()
        # What reads the parameters still finds them.
        assert json.loads(Image.open(io.BytesIO(drawn(cluster))).text["qwen-image-cluster"])["seed"] == 11
    with Cluster(BINARIES, NANO, settings={"provenance-digital-source-type": "false"}) as cluster:
        for name in FORMATS:
            assert xmp(drawn(cluster, output_format=name)) is None


def test_signed_files_are_valid_and_trusted():
    with certificates() as folder, Cluster(BINARIES, NANO, settings=settings(folder)) as cluster:
        for name in FORMATS:
            job = submit(cluster, output_format=name)
            image = fetch(cluster, job)
            report = Report(image, folder / "root.pem")
            report.check_trusted()
            assert [action["action"] for action in report.actions] == ["c2pa.created"], report.actions
            assert report.actions[0]["digitalSourceType"] == TRAINED == source_type(image), report.actions
            assert not report.ingredients
            # Without the anchor the signature is valid, but not trusted.
            assert Report(image).state == "Valid" and Report(image).codes["failure"] == ["signingCredential.untrusted"]
            check_edits(cluster, folder, name, image)
            # Signed once: the job has the same bytes whenever they are fetched, and another one has its own.
            assert fetch(cluster, job) == image
            again = drawn(cluster, output_format=name)
            assert again != image and (pixels(again) == pixels(image)).all()
            broken = Report(changed(image), folder / "root.pem")
            assert broken.state == "Invalid" and broken.codes["failure"] == ["assertion.dataHash.mismatch"], broken.report
        check_restart(cluster, folder)


def check_edits(cluster, folder, name, image):
    """Edits of an image, with a mask, and of several."""
    mask = io.BytesIO()
    Image.fromarray(numpy.where(numpy.arange(64)[:, None] < 32, 255, 0).astype(numpy.uint8).repeat(64, 1)).save(mask, "PNG")
    digest = lambda data: f"SHA-256 of the file: {hashlib.sha256(data).hexdigest()}"
    for fields, titles in (({"image": data_url(image)}, ["image"]),
                           ({"image": data_url(image), "mask": data_url(mask.getvalue())}, ["image", "mask"]),
                           ({"image": [data_url(image), data_url(image)]}, ["image", "image 2"])):
        edited = drawn(cluster, output_format=name, prompt="make the circle blue", **fields)
        report = Report(edited, folder / "root.pem")
        report.check_trusted()
        assert [action["action"] for action in report.actions] == ["c2pa.opened", "c2pa.edited"], report.actions
        assert report.actions[1]["digitalSourceType"] == COMPOSITE == source_type(edited), report.actions
        assert [ingredient["title"] for ingredient in report.ingredients] == titles, report.ingredients
        relationships = ["parentOf"] + ["inputTo"] * (len(titles) - 1)
        assert [ingredient["relationship"] for ingredient in report.ingredients] == relationships, report.ingredients
        assert report.ingredients[0]["description"] == digest(image), report.ingredients
        if "mask" in titles:
            assert report.ingredients[1]["description"] == digest(mask.getvalue()), report.ingredients


def check_restart(cluster, folder):
    """Results outlive the gateway with their signatures; a job that it leaves unfinished is signed by the next one."""
    job = submit(cluster)
    image = fetch(cluster, job)
    body = {"prompt": "a blue star", "seed": 12, "steps": 100}
    call = urllib.request.Request(f"{cluster.url}/v1/jobs", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(call, timeout=60) as response:
        open_job = json.load(response)["id"]
    cluster.stop("gateway", signal.SIGKILL)
    cluster.start_gateway()
    cluster.wait_until_ready()
    assert fetch(cluster, job) == image
    cluster.wait(lambda: cluster.get(f"/v1/jobs/{open_job}")[1]["status"] == "succeeded", "done")
    Report(fetch(cluster, open_job), folder / "root.pem").check_trusted()


def test_every_layer_is_signed():
    image = (TINY / "inputs/rgba.png").read_bytes()
    with certificates() as folder, checkpoint(
            "checkpoint-layered", "QwenImageLayeredPipeline", reference_area=4096) as model, Cluster(
                BINARIES, model, precision="fp32", settings=settings(folder)) as cluster:
        job = submit(cluster, image=data_url(image), layers=3)
        for layer in range(3):
            file = fetch(cluster, job, f"?layer={layer}")
            report = Report(file, folder / "root.pem")
            report.check_trusted()
            assert source_type(file) == COMPOSITE and report.ingredients[0]["relationship"] == "parentOf", report.report


def test_certificates_that_cannot_sign_are_refused_by_name():
    with certificates() as folder:
        def check(values, *texts):
            flags = [str(x) for flag, value in values.items() for x in (f"--{flag}", value)]
            for action in (["--check-config"], ["--http-port", "0", "--journal-path", "off"]):
                result = subprocess.run([BINARIES / "gateway", *action, *flags], capture_output=True, text=True, timeout=60)
                assert result.returncode == 78, (action, result)
                for text in texts:
                    assert text in result.stderr, (text, result.stderr)

        fine = [str(x) for flag, value in settings(folder).items() for x in (f"--{flag}", value)]
        assert subprocess.run([BINARIES / "gateway", "--check-config", *fine], capture_output=True).returncode == 0
        check({"provenance-certificate-file": folder / "signer.chain"}, "without provenance.privateKeyFile")
        check(settings(folder, "missing.pem"), "missing.pem", "No such file")
        check(settings(folder, key="issuer.key"), "issuer.key", "not the private key of the first certificate")
        certificate(folder, "server", "issuer", SIGNER.replace("emailProtection", "serverAuth"))
        check(settings(folder, "server.chain", "server.key"), "server.chain", "/O=Tests/CN=server", "extended key usage")
        certificate(folder, "large", "issuer", curve="P-384")
        check(settings(folder, "large.chain", "large.key"), "large.key", "P-256")
        certificate(folder, "old", "issuer", days=-1)
        check(settings(folder, "old.chain", "old.key"), "/O=Tests/CN=old", "expired")
        (folder / "signer.key").chmod(0o640)
        check(settings(folder), "signer.key", "mode 640")


if __name__ == "__main__":
    sys.exit(testing.run("provenance", testing.functions(globals())))
