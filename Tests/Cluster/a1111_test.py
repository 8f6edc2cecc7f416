#!/usr/bin/env python3
"""Programs that speak the API of A1111's web UI, through real processes: what they send at the start and for an image, and PyPI's
client of that API.

    a1111_test.py [DIRECTORY OF THE EXECUTABLES]
"""

import base64
import concurrent.futures
import io
import json
import pathlib
import signal
import subprocess
import sys
import urllib.request

import numpy
import openai
import requests
import webuiapi
from PIL import Image

from cluster import Cluster
from models import TINY, checkpoint

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "Tests/Support"))
import testing  # noqa: E402

BINARIES = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".build/release").resolve()
NANO = ROOT / "compose/models/nano-qwen-image"
INPUTS = TINY / "inputs"

SAMPLERS = ["Euler", "Heun", "DPM++ 2M", "DPM++ 2M SDE", "ER SDE", "RES Multistep", "UniPC"]
SCHEDULERS = ["automatic", "simple", "beta", "sgm_uniform", "linear", "lightning"]


def call(cluster, method, path, body=None, auth=None, timeout=300):
    """An answer as JSON; the request must succeed."""
    answer = requests.request(method, f"{cluster.url}/sdapi/v1/{path}", json=body, auth=auth, timeout=timeout)
    assert answer.status_code == 200, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
    return answer.json()


def images(answer):
    return [base64.b64decode(image) for image in answer["images"]]


def drawn(cluster, **fields):
    """The file that OpenAI's client gets."""
    client = openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="unused", max_retries=0, timeout=300)
    prompt = fields.pop("prompt")
    return base64.b64decode(client.images.generate(prompt=prompt, extra_body=fields).data[0].b64_json)


def pixels(data):
    return numpy.asarray(Image.open(io.BytesIO(data)))


def keys(cluster, *tenants):
    """The gateway, started again with a key for each of the tenants."""
    made = [subprocess.run([BINARIES / "qwen-image", "api-key", tenant], check=True, capture_output=True, text=True) for tenant in tenants]
    path = cluster.folder / "api-keys"
    path.write_text("".join(result.stdout for result in made))
    cluster.stop("gateway", signal.SIGTERM)
    cluster.settings = {"http-api-keys-file": path}
    cluster.start_gateway()
    cluster.wait_until_ready()
    return [result.stderr.split()[-1] for result in made]


def test_what_sillytavern_sends():
    """Its extension's lists, the choice of a model, an image, and its end when the user stops it; with HTTP Basic."""
    with Cluster(BINARIES, NANO) as cluster:
        (key,) = keys(cluster, "tavern")
        auth = ("user", key)
        get = lambda path: call(cluster, "GET", path, auth=auth)
        assert requests.get(f"{cluster.url}/sdapi/v1/options", timeout=60).status_code == 401
        assert requests.get(f"{cluster.url}/sdapi/v1/options", auth=("user", "x"), timeout=60).status_code == 401
        assert "forge_preset" not in get("options")
        names = [entry["name"] for entry in get("upscalers")] + [entry["name"] for entry in get("latent-upscale-modes")]
        assert names == ["None"], names
        samplers, schedulers = [[entry["name"] for entry in get(path)] for path in ("samplers", "schedulers")]
        assert (samplers, schedulers) == (SAMPLERS, SCHEDULERS), (samplers, schedulers)
        assert [entry["model_name"] for entry in get("sd-vae")] == []
        assert requests.get(f"{cluster.url}/sdapi/v1/sd-modules", auth=auth, timeout=60).status_code == 404
        (model,) = [entry["title"] for entry in get("sd-models")]
        call(cluster, "POST", "options", {"sd_model_checkpoint": model}, auth)
        progress = get("progress")
        assert progress["progress"] == 0 and progress["state"]["job_count"] == 0, progress
        assert get("options")["sd_model_checkpoint"] == model
        # Address and password of the server are among the fields.
        body = {
            "url": cluster.url, "auth": f"user:{key}", "prompt": "a red heart", "negative_prompt": "", "sampler_name": "DDIM",
            "scheduler": "normal", "steps": 6, "cfg_scale": 7, "width": 64, "height": 64, "restore_faces": False, "enable_hr": False,
            "hr_upscaler": "Latent", "hr_scale": 1.5, "hr_additional_modules": [], "denoising_strength": 0.7, "hr_second_pass_steps": 0,
            "seed": 7, "override_settings": {"CLIP_stop_at_last_layers": 1}, "override_settings_restore_afterwards": True, "clip_skip": 1,
            "save_images": True, "send_images": True, "do_not_save_grid": False, "do_not_save_samples": False}
        answer = call(cluster, "POST", "txt2img", body, auth)
        assert key not in json.dumps(answer), "the password comes back"
        (file,) = images(answer)
        through = cluster.folder / "cli.png"
        result = cluster.generate(through, prompt="a red heart", seed=7, steps=6, api_key=key)
        assert result.returncode == 0, result.stderr
        assert file == through.read_bytes(), "scale 7 and no negative prompt stand for the model's own"
        info = json.loads(answer["info"])
        assert info["all_seeds"] == [7] and "Steps: 6" in info["infotexts"][0] and info["sd_model_name"] == model, info
        assert any("DDIM" in note for note in info["notes"]), info
        # The user stops it: SillyTavern asks for an end, and closes the connection.
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(requests.post, f"{cluster.url}/sdapi/v1/txt2img", json={**body, "steps": 200}, auth=auth, timeout=300)
            cluster.wait(lambda: get("progress")["progress"] > 0.02, "under way")
            state = get("progress")
            assert state["state"]["sampling_steps"] == 200 and state["state"]["sampling_step"] > 0, state
            call(cluster, "POST", "interrupt", auth=auth)
            stopped = running.result()
        assert stopped.status_code == 499 and "interrupted" in stopped.json()["errors"], stopped.text
        assert get("progress")["state"]["job_count"] == 0
        # What it logs when it fails.
        wrong = requests.post(f"{cluster.url}/sdapi/v1/txt2img", json={**body, "steps": 100_000}, auth=auth, timeout=60)
        assert wrong.status_code == 422 and wrong.json()["detail"][0]["loc"] == ["body", "steps"], wrong.text


def test_what_open_webui_sends():
    """Verifying the address, listing models, choosing one by sending all options back, and images of a size that it has set. Its
    manual has a slash at the address's end, behind which it puts another."""
    with Cluster(BINARIES, NANO) as cluster:
        key, other = keys(cluster, "webui", "other")
        header = {"authorization": "Basic " + base64.b64encode(f"user:{key}".encode()).decode()}
        send = lambda method, path, **options: requests.request(
            method, f"{cluster.url}//sdapi/v1/{path}", headers=header, timeout=300, **options)
        options = send("GET", "options")
        assert options.status_code == 200
        listed = [(entry["title"], entry["model_name"]) for entry in send("GET", "sd-models").json()]
        assert len(listed) == 1 and listed[0][0] == options.json()["sd_model_checkpoint"], listed
        assert send("POST", "options", json={**options.json(), "sd_model_checkpoint": listed[0][0]}).status_code == 200
        answer = send("POST", "txt2img", json={
            "prompt": "a blue star", "batch_size": 2, "width": 512, "height": 512, "steps": 4, "negative_prompt": "red"})
        assert answer.status_code == 200, answer.text
        answer = answer.json()
        files = images(answer)
        info = json.loads(answer["info"])
        assert len(files) == 2 and info["all_seeds"][1] == info["all_seeds"][0] + 1, info
        size = (answer["parameters"]["width"], answer["parameters"]["height"])
        assert size == (256, 256) and [Image.open(io.BytesIO(file)).size for file in files] == [size] * 2, size
        # Another tenant sees nothing of it.
        assert requests.get(f"{cluster.url}/v1/jobs/{info['job_id']}", headers={"authorization": f"Bearer {other}"},
                            timeout=60).status_code == 404
        assert send("GET", "progress").json()["progress"] == 0
        # Without an image it shows what the server says.
        refused = send("POST", "txt2img", json={"prompt": "a <lora:style:1> star"})
        assert refused.status_code == 422 and "style" in refused.json()["errors"], refused.text
        refused = send("POST", "txt2img", json={"prompt": "a <hypernet:style:1> star"})
        assert refused.status_code == 422 and "<hypernet:style" in refused.json()["errors"], refused.text


def test_pypis_client():
    """webuiapi, unmodified, with what it sends when nothing is chosen."""
    with Cluster(BINARIES, NANO) as cluster:
        api = webuiapi.WebUIApi(baseurl=f"{cluster.url}/sdapi/v1")
        assert api.util_get_sampler_names() == sorted(SAMPLERS) and api.util_get_scheduler_names() == sorted(SCHEDULERS)
        name = api.util_get_model_names()[0]
        api.util_set_model(name)
        assert api.util_get_current_model() == name
        for method in (api.get_cmd_flags, api.get_upscalers, api.get_latent_upscale_modes, api.get_sd_vae, api.get_loras, api.get_hypernetworks,
                       api.get_face_restorers, api.get_realesrgan_models, api.get_prompt_styles, api.get_embeddings, api.get_memory,
                       api.refresh_checkpoints, api.get_scripts, api.get_schedulers):
            method()
        result = api.txt2img(prompt="a red heart", seed=3, steps=8, width=64, height=64)
        assert result.image.size == (64, 64) and result.info["all_seeds"] == [3], result.info
        whole = drawn(cluster, prompt="a red heart", seed=3, steps=8)
        assert images(result.json)[0] == whole
        assert "a red heart" in api.png_info(Image.open(io.BytesIO(whole))).info
        # From an image, at the same noise as by the other route.
        begun = api.img2img(images=[result.image], prompt="a red circle", seed=4, steps=12, denoising_strength=0.5, width=64, height=64)
        again = requests.post(f"{cluster.url}/v1/images/edits", timeout=300, json={
            "prompt": "a red circle", "image": base64.b64encode(whole).decode(), "strength": 0.5, "seed": 4, "steps": 12})
        assert (pixels(images(begun.json)[0]) == pixels(base64.b64decode(again.json()["data"][0]["b64_json"]))).all()
        # A strength of 1 edits, where the model does.
        edited = api.img2img(images=[result.image], prompt="make the heart blue", seed=4, steps=8, denoising_strength=1, width=64, height=64)
        assert any("edited" in note for note in edited.info["notes"]), edited.info
        # A mask: every other pixel stays, whichever way around it is.
        mask = numpy.zeros((64, 64), numpy.uint8)
        mask[16:48, 16:48] = 255
        kept = [
            pixels(images(api.img2img(
                images=[result.image], mask_image=Image.fromarray(shown), inpainting_mask_invert=inverted, prompt="a red circle", seed=5,
                steps=6, denoising_strength=1, mask_blur=0, inpaint_full_res=False, width=64, height=64).json)[0])
            for shown, inverted in ((mask, 0), (255 - mask, 1))]
        assert (kept[0] == kept[1]).all() and (kept[0][mask == 0] == pixels(whole)[mask == 0]).all()
        assert (kept[0][mask > 0] != pixels(whole)[mask > 0]).any()
        try:
            # A dictionary of its own: the client keeps what it has put into its default.
            api.txt2img(prompt="x", adetailer=[webuiapi.ADetailer(ad_model="face_yolov8n.pt")], alwayson_scripts={})
        except RuntimeError as error:
            assert "ADetailer" in str(error) and error.args[0] == 422, error
        else:
            raise AssertionError("an extension that is not there was taken")


def test_a_client_that_leaves_cancels():
    with Cluster(BINARIES, NANO) as cluster:
        try:
            requests.post(f"{cluster.url}/sdapi/v1/txt2img", json={"prompt": "p", "steps": 200, "batch_size": 4}, timeout=1)
        except requests.exceptions.Timeout:
            pass
        job = lambda: cluster.get("/v1/jobs?limit=1")[1]["data"][0]
        cluster.wait(lambda: job()["status"] == "cancelled", "cancelled")
        # One that wants the job to be kept says so, as by the other routes.
        try:
            requests.post(f"{cluster.url}/sdapi/v1/txt2img", json={"prompt": "p", "steps": 20, "seed": 1}, timeout=0.2,
                          headers={"X-Detach": "true"})
        except requests.exceptions.Timeout:
            pass
        cluster.wait(lambda: job()["status"] == "succeeded", "made all the same")


def test_units_of_controlnet():
    exact = INPUTS / "exact.png"
    data = base64.b64encode(exact.read_bytes()).decode()
    with checkpoint("checkpoint", "QwenImagePipeline") as model, Cluster(
            BINARIES, model, precision="fp32", stage_settings={"denoiser": {"model-control-networks": TINY / "controlnet"}}) as cluster:
        api = webuiapi.WebUIApi(baseurl=f"{cluster.url}/sdapi/v1")
        unit = webuiapi.ControlNetUnit(image=Image.open(exact), weight=0.8)
        result = api.txt2img(prompt="a red circle", seed=11, steps=3, cfg_scale=3, width=96, height=64, controlnet_units=[unit])
        same = drawn(cluster, prompt="a red circle", seed=11, steps=3, true_cfg_scale=3, size="96x64", control_image=data, control_scale=0.8)
        assert (pixels(images(result.json)[0]) == pixels(same)).all()
        unit.module = "canny"
        answer = requests.post(f"{cluster.url}/sdapi/v1/txt2img", timeout=60, json={
            "prompt": "p", "alwayson_scripts": {"controlnet": {"args": [unit.to_dict()]}}})
        assert answer.status_code == 422 and "canny" in answer.text, answer.text


def test_jobs_outlive_the_gateway():
    """As by every other route: what was accepted is made after a restart, if it is to be."""
    with Cluster(BINARIES, NANO) as cluster:
        body = {"prompt": "a red heart", "seed": 2, "steps": 90}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(requests.post, f"{cluster.url}/sdapi/v1/txt2img", json=body, headers={"X-Detach": "true"}, timeout=300)
            cluster.wait(lambda: (cluster.get("/sdapi/v1/progress")[1] or {}).get("progress", 0) > 0.02, "under way")
            job = cluster.get("/sdapi/v1/progress")[1]["state"]["job_id"]
            cluster.stop("gateway")
            try:
                running.result()
            except requests.exceptions.RequestException:
                pass
        cluster.start_gateway()
        cluster.wait_until_ready()
        cluster.wait(lambda: cluster.get(f"/v1/jobs/{job}")[1].get("status") == "succeeded", "done")
        with urllib.request.urlopen(f"{cluster.url}/v1/jobs/{job}/result", timeout=60) as answer:
            assert answer.read() == drawn(cluster, **body)


if __name__ == "__main__":
    sys.exit(testing.run("a1111", testing.functions(globals())))
