import ClusterCore
import GatewayAPI
import ImageCodec
import StrictJSON
import Wire

extension Pipeline {
  /// Several edits one after the other, each of what the one before has made: the plans of their pipelines behind one
  /// another. What one edit has made is journalled like any output, so that a job resumes with the edit, and the step
  /// of it, that it had come to.
  public static let editSequence = Pipeline(
    name: .editSequence, stages: [.textEncoder, .vaeEncoder, .denoiser, .vaeDecoder], images: 1...1
  ) { spec in
    var tasks: [PipelineTask] = []
    for (index, edit) in spec.sequence.enumerated() {
      guard let pipeline = edits[edit.pipeline] else { preconditionFailure("\(edit.pipeline)") }
      var own = pipeline.tasks(edit)
      let last = own.removeLast()
      own.append(index + 1 < spec.edits.count ? last.givingPixels(of: edit) : last.writing(spec.textEntries))
      let offset = tasks.count
      let object = ObjectEdit(option: edit.options[ObjectEdit.key])
      tasks += own.map { $0.moved(by: offset).taking(offset - 1, for: ImageSpec.madeImage(index), object) }
    }
    return tasks
  }

  /// The pipelines that an edit of several may be of: those that make one image of one.
  static let edits = PipelineRegistry([.imageToImage, .inpaint, .edit, .editPlus, .editInpaint])

  /// As ``problem(of:)``, of several edits.
  static func problem(ofSequence spec: ImageSpec) -> String? {
    if spec.edits.isEmpty { return "there are no edits" }
    for (index, edit) in spec.edits.enumerated() {
      guard let pipeline = edits[edit.pipeline] else { return "edit \(index) is of the pipeline \(edit.pipeline)" }
      if let problem = pipeline.problem(of: edit) { return "edit \(index): \(problem)" }
      guard index == 0 || edit.inputs[0].digest == ImageSpec.madeImage(index), edit.images.count == 1 else {
        return "edit \(index) does not begin with what edit \(index - 1) makes"
      }
    }
    return nil
  }
}

extension ImageSpec {
  /// The digest that stands for the image that edit number `index` begins with, from 1: what the edit before has made.
  static func madeImage(_ index: Int) -> String { "edit-\(index)" }

  /// The edits with what they have in common.
  var sequence: [ImageSpec] {
    edits.map { edit in
      var edit = edit
      (edit.card, edit.steps, edit.trueCFGScale, edit.seed) = (card, steps, trueCFGScale, seed)
      return edit
    }
  }

  /// Width and height of the result: of the image, where it comes back around what was made anew.
  package var resultSize: ImageSize { overlay?.image.size ?? size }
}

extension PipelineTask {
  /// The task in a plan where `count` tasks come before its own.
  fileprivate func moved(by count: Int) -> PipelineTask {
    var task = self
    task.plan.inputs = plan.inputs.map { $0 + count }
    return task
  }

  /// The task with the output of task `place`, as `edit` changes it, instead of the request's image `digest`.
  fileprivate func taking(_ place: Int, for digest: String, _ edit: ObjectEdit?) -> PipelineTask {
    let taken = images.filter { $0.digest == digest }
    guard !taken.isEmpty else { return self }
    var task = self
    task.images.removeAll { $0.digest == digest }
    task.plan.inputs.append(place)
    // Tasks with inputs are not shared.
    task.plan.content = nil
    task.message = { input in
      var own = input
      let made = own.inputs.removeLast()
      var message = self.message(own)
      let image = edit.map { made.edited($0) } ?? made
      message.tensors += taken.map { image.renamed($0.name) }
      return message
    }
    return task
  }

  /// A decoder's task whose output are the pixels instead of a file.
  fileprivate func givingPixels(of edit: ImageSpec) -> PipelineTask {
    let shape = [edit.resultSize.heightPx, edit.resultSize.widthPx, edit.isTransparent ? 4 : 3]
    var task = changingRequest {
      $0.format = .pixels
      $0.textEntries = []
    }
    task.output = TensorRule(TensorName.image) { tensor in
      tensor.dtype == .uint8 && tensor.shape == shape
        ? nil : "is \(tensor.dtype.rawValue) \(tensor.shape), not U8 \(shape)"
    } problemOfBody: { body in
      if case .decodeResponse = body { nil } else { "decode_response was expected" }
    }
    return task
  }

  /// A decoder's task that writes `entries` into the file.
  fileprivate func writing(_ entries: [TextEntry]) -> PipelineTask { changingRequest { $0.textEntries = entries } }

  private func changingRequest(_ change: @escaping @Sendable (inout DecodeRequest) -> Void) -> PipelineTask {
    var task = self
    task.message = { input in
      var message = self.message(input)
      guard case .decodeRequest(var request) = message.body else { preconditionFailure("the last task decodes") }
      change(&request)
      message.body = .decodeRequest(request)
      return message
    }
    return task
  }
}

extension WireTensor {
  /// Pixels with the object where it goes.
  fileprivate func edited(_ edit: ObjectEdit) -> WireTensor {
    guard let move = edit.move, shape.count == 3 else { return self }
    let image = RasterImage(
      width: shape[1], height: shape[0], channels: shape[2], pixels: bytes.withUnsafeBytes { Array($0) })
    // The edit was tried on an image of this size when the request came.
    guard let object = try? edit.mask(for: ImageSize(widthPx: image.width, heightPx: image.height)),
      let moved = try? move.applied(to: image, object: object)
    else { return self }
    var tensor = self
    tensor.bytes = FrameBuffer(copying: moved.image.pixels)
    return tensor
  }
}
