import StageSupport

@main
struct VAEDecoderMain {
  static func main() async {
    await StageProcess.main("vae-decoder", summary: "Decodes latents into images for a Qwen-Image cluster.") {
      loading in
      try VAEDecoderStage(loading)
    }
  }
}
