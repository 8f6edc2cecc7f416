import ClusterCore
import GatewayAPI
import StrictJSON

extension BackgroundChoice {
  /// The options and the prompt of a request with this choice.
  ///
  /// - Throws: an error that names `background` when the model makes opaque images only.
  func applied(
    to options: [String: JSON], _ prompt: String, _ pipeline: PipelineName, _ card: ModelCard
  ) throws(APIError) -> (options: [String: JSON], prompt: String) {
    do throws(Status) {
      let prompt = try self.prompt(prompt, pipeline, card)
      guard self == .opaque, card.hasTransparency else { return (options, prompt) }
      return (options.merging([ImageSpec.backgroundKey: .string(rawValue)]) { $1 }, prompt)
    } catch { throw APIError(.unsupportedValue, error.message, param: error.field) }
  }
}
