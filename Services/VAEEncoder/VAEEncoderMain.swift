import StageSupport

@main
struct VAEEncoderMain {
  static func main() async {
    await StageProcess.main("vae-encoder", summary: "Encodes images into latents for a Qwen-Image cluster.") {
      loading in
      try VAEEncoderStage(loading)
    }
  }
}
