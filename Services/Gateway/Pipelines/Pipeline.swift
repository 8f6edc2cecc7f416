import ClusterCore
import GatewayAPI
import Scheduling
import StrictJSON

/// One kind of work that clients can ask for: the fields that a request takes beyond the common ones, and the tasks
/// that it becomes.
///
/// Each is a value, declared in a file of its own in this folder, and one entry of ``PipelineRegistry/standard``.
/// Scheduler, journal and dispatcher do not know any of them by name.
public struct Pipeline: Sendable {
  /// As model cards, requests and the journal name it.
  public var name: PipelineName
  /// Every stage that a request may need: a model is ready for the pipeline when each of them has a ready worker.
  public var stages: [StageName]
  /// How many images to begin with or to edit a request has.
  public var images: ClosedRange<Int>
  /// Whether a request has a mask.
  public var takesMask: Bool
  /// How many control images a request has.
  public var controls: ClosedRange<Int>
  /// Reads and checks the fields of the pipeline's own; what it returns becomes ``ImageSpec/options``.
  public var readOptions: @Sendable (inout FieldReader) throws(APIError) -> [String: JSON]
  /// The tasks of one image, each after those whose outputs it takes. The last one's output is the image, encoded.
  public var tasks: @Sendable (ImageSpec) -> [PipelineTask]

  /// See the properties.
  public init(
    name: PipelineName, stages: [StageName], images: ClosedRange<Int> = 0...0, takesMask: Bool = false,
    controls: ClosedRange<Int> = 0...0,
    readOptions: @escaping @Sendable (inout FieldReader) throws(APIError) -> [String: JSON] = { _ in [:] },
    tasks: @escaping @Sendable (ImageSpec) -> [PipelineTask]
  ) {
    self.name = name
    self.stages = stages
    self.images = images
    self.takesMask = takesMask
    self.controls = controls
    self.readOptions = readOptions
    self.tasks = tasks
  }

  /// What keeps ``tasks`` from being made of a specification, which the journal may have from anywhere; nil: nothing.
  /// Those of ``ImageSpec/images(of:card:pipelines:intake:randomSeed:)`` are right.
  public func problem(of spec: ImageSpec) -> String? {
    if let problem = spec.adapterProblem { return problem }
    if name == .editSequence { return Self.problem(ofSequence: spec) }
    let masks = spec.inputs.count { $0.role == .mask }
    for (field, count, allowed) in [
      ("image", spec.images.count, images), ("control_image", spec.controls.count, controls),
      ("mask", masks, takesMask ? 1...1 : 0...0),
    ] where !allowed.contains(count) {
      return "\(name) has \(count) of \(field), not \(allowed.lowerBound) to \(allowed.upperBound)"
    }
    let target = spec.images.first ?? spec.controls.first
    if let mask = spec.mask, mask.size != target?.size || mask.channels != 1 { return "the mask is not of the image" }
    if let region = spec.maskRegion, let size = target?.size,
      region.right > size.widthPx || region.bottom > size.heightPx
    {
      return "the region of the mask is not within the image"
    }
    return nil
  }

  /// What the scheduler is to do for one image.
  public func plan(_ spec: ImageSpec) -> ImageJobPlan { ImageJobPlan(tasks(spec).map(\.plan)) }
}

/// The pipelines that a gateway knows, by name.
public struct PipelineRegistry: Sendable {
  /// In the order of their declaration.
  public let pipelines: [Pipeline]

  /// A registry of `pipelines`; a name that occurs twice is a programmer error.
  public init(_ pipelines: [Pipeline]) {
    precondition(Set(pipelines.map(\.name)).count == pipelines.count, "two pipelines of one name")
    self.pipelines = pipelines
  }

  /// All pipelines of this program.
  public static let standard = PipelineRegistry([
    .textToImage, .imageToImage, .inpaint, .edit, .editPlus, .editInpaint, .controlNet, .controlNetInpaint,
    .layered, .editSequence,
  ])

  /// The pipeline called `name`; nil: there is none.
  public subscript(_ name: PipelineName) -> Pipeline? { pipelines.first { $0.name == name } }

  /// The name of a pipeline that a request asks for; nil: it asks for none.
  func name(_ text: String?) throws(APIError) -> String? {
    guard let text else { return nil }
    guard pipelines.contains(where: { $0.name.text == text }) else {
      let list = pipelines.map { "\"\($0.name)\"" }.joined(separator: ", ")
      throw APIError(.invalidValue, "pipeline is \"\(text.prefix(80))\", but must be one of \(list)", param: "pipeline")
    }
    return text
  }

  /// Reads the fields that belong to one pipeline or another: which one it is may depend on the model.
  func readOptions(_ fields: inout FieldReader) throws(APIError) -> [PipelineName: [String: JSON]] {
    var options: [PipelineName: [String: JSON]] = [:]
    for pipeline in pipelines { options[pipeline.name] = try pipeline.readOptions(&fields) }
    return options
  }

  /// Those pipelines of a model that this gateway knows.
  public func pipelines(of card: ModelCard) -> [Pipeline] { card.pipelines.compactMap { self[$0] } }
}
