import StageSupport

@main
struct TextEncoderMain {
  static func main() async {
    await StageProcess.main("text-encoder", summary: "Encodes prompts for a Qwen-Image cluster (Qwen2.5-VL).") {
      loading in
      try TextEncoderStage(loading)
    }
  }
}
