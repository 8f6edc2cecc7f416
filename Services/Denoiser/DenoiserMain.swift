import StageSupport

@main
struct DenoiserMain {
  static func main() async {
    await StageProcess.main("denoiser", summary: "Denoises latents for a Qwen-Image cluster (MMDiT, flow matching).") {
      loading in
      try DenoiserStage(loading)
    }
  }
}
