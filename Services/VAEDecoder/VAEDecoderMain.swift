import StageSupport

@main
struct VAEDecoderMain {
  static func main() async {
    await StageProcess.main("vae-decoder", summary: "Decodes latents into pictures for a Qwen-Image cluster.") {
      loading in
      try VAEDecoderStage(loading)
    }
  }
}
