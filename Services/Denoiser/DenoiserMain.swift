import Diffusion
import StageRuntime
import StageSupport

@main
struct DenoiserMain {
  static func main() async {
    await StageProcess.main("denoiser", summary: "Denoises latents for a Qwen-Image cluster (flow matching).") {
      loading in
      let predictor = try loading.model.family.predictor(
        of: loading.model, loading: loading.weights, pool: loading.pool, options: loading.predictor)
      return try stage(predictor, loading)
    }
  }

  private static func stage(_ predictor: some VelocityPredictor, _ loading: StageLoading) throws -> any Stage {
    try DenoiserStage(predictor, loading)
  }
}
