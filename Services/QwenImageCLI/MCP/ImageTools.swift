import Foundation
import MCP
import StrictJSON

/// The tools of `qwen-image mcp`: what a gateway does, in words for a model.
struct ImageTools: ToolProvider {
  static let instructions = """
    Makes and edits images with Qwen-Image models. Say in the prompt what the image is to show, with any words that \
    are to be written in it in quotation marks. Every image has a seed: the same request with the same seed gives the \
    same image. To change an image that was made here, call edit_image with the id of its job.
    """

  let client: GatewayClient
  let reader: ToolImageReader
  let images: ToolImages
  /// What images are when a call does not say.
  let standardFormat: String

  var tools: [Tool] { Self.all }

  func call(_ name: String, _ arguments: JSONObject, _ context: ToolCallContext) async -> ToolResult {
    do {
      switch name {
      case "generate_image": return try await make(arguments, context)
      case "edit_image": return try await edit(arguments, context)
      case "get_job": return try await job(arguments)
      case "list_jobs": return try await jobs(arguments)
      case "cancel_job":
        return try structured(await client.cancellation(of: arguments["job_id"]?.text ?? ""))
      default: return try structured(await client.document("/v1/models"))
      }
    } catch {
      return .error(Self.advice(client.explained(error)))
    }
  }

  /// What is wrong, and what to do about it.
  private static func advice(_ error: any Error) -> String {
    switch error {
    case is CancellationError: "the call was cancelled"
    case GatewayClientError.refused(let status, let message, let seconds):
      switch status {
      case 400, 404, 413, 422: "\(message). Correct the arguments, and call the tool again."
      case 429, 503: "\(message). Try again in \(seconds ?? 10) seconds."
      default: "the gateway refused the request (\(status)): \(message)"
      }
    case let error as ToolArgumentError: "\(error). Correct the argument, and call the tool again."
    default: "\(error)"
    }
  }

  /// A document for the model and for programs.
  private func structured(_ document: JSON) -> ToolResult {
    ToolResult(content: [.text(String(decoding: document.bytes, as: UTF8.self))], structuredContent: document)
  }

  // MARK: Making

  private func make(_ arguments: JSONObject, _ context: ToolCallContext) async throws -> ToolResult {
    var form = UploadForm()
    add(arguments, to: &form)
    return try await submit(form, arguments, context)
  }

  private func edit(_ arguments: JSONObject, _ context: ToolCallContext) async throws -> ToolResult {
    var form = UploadForm()
    let others = arguments["further_images"]?.elements?.compactMap(\.text) ?? []
    for (index, image) in ([arguments["image"]?.text ?? ""] + others).enumerated() {
      let argument = index == 0 ? "image" : "further_images[\(index - 1)]"
      form.add("image", try await reader.read(image, argument))
    }
    if let mask = arguments["mask"]?.text { form.add("mask", try await reader.read(mask, "mask")) }
    form.add("strength", arguments["strength"]?.double)
    add(arguments, to: &form)
    return try await submit(form, arguments, context)
  }

  private func add(_ arguments: JSONObject, to form: inout UploadForm) {
    for name in ["prompt", "negative_prompt", "model", "background", "sampler", "schedule", "cache"] {
      form.add(name, arguments[name]?.text)
    }
    if let loras = arguments["loras"] { form.add("loras", loras) }
    for name in ["n", "width", "height", "steps", "seed", "cfg_steps"] {
      form.add(name, arguments[name]?.double.flatMap { Int(exactly: $0) })
    }
    form.add("true_cfg_scale", arguments["true_cfg_scale"]?.double)
    if arguments["enhance_prompt"] == true { form.add("enhance_prompt", true) }
    let format = arguments["output_format"]?.text ?? standardFormat
    if format != "png" { form.add("output_format", format) }
  }

  private func submit(
    _ form: UploadForm, _ arguments: JSONObject, _ context: ToolCallContext
  ) async throws -> ToolResult {
    let job = try await client.submit(GatewayClient.Upload(form, key: nil))
    guard arguments["wait"] != false else {
      return ToolResult(
        content: [.text("Job \(job.id) was accepted. get_job with this id gives its images when they are done.")],
        structuredContent: ["job_id": .string(job.id), "status": .string(job.status), "images": []])
    }
    do { return try await made(follow(job, context)) } catch {
      if Task.isCancelled { await client.cancelQuietly(job.id) }
      throw error
    }
  }

  /// Waits for the end of a job, and reports its progress.
  private func follow(_ job: GatewayClient.Job, _ context: ToolCallContext) async throws -> GatewayClient.Job {
    let (updates, continuation) = AsyncStream<GatewayClient.Job>.makeStream(bufferingPolicy: .bufferingNewest(1))
    async let ended = watch(job.id, continuation)
    for await update in updates {
      let total = max(update.totalSteps, 1)
      let text =
        update.queuePosition.map { "queued, position \($0)" } ?? "\(update.status), step \(update.step) of \(total)"
      await context.progress(Double(min(update.step, total)), of: Double(total), text)
    }
    return try await ended
  }

  private func watch(
    _ job: String, _ updates: AsyncStream<GatewayClient.Job>.Continuation
  ) async throws -> GatewayClient.Job {
    defer { updates.finish() }
    return try await client.watch(job) { job, _ in updates.yield(job) }
  }

  /// The result of a job that has ended.
  private func made(_ job: GatewayClient.Job) async throws -> ToolResult {
    guard job.status == "succeeded" else {
      let reason = job.images.compactMap { $0.error?.message.prefix(2000) }.first.map { ": \($0)" } ?? ""
      return .error("job \(job.id) has \(job.status)\(reason)")
    }
    let (content, images) = try await images.blocks(of: job)
    let seeds = job.images.map { "\($0.seed)" }.joined(separator: ", ")
    let text =
      "Job \(job.id): \(job.n == 1 ? "an image" : "\(job.n) images") of \(job.size), seed \(seeds). To change it, call "
      + "edit_image with image \"\(job.id)\"." + (job.revisedPrompt.map { " It was made of this prompt: \($0)" } ?? "")
    return ToolResult(
      content: content + [.text(text)],
      structuredContent: [
        "job_id": .string(job.id), "status": .string(job.status), "size": .string(job.size), "images": .array(images),
      ])
  }

  // MARK: Jobs

  private func job(_ arguments: JSONObject) async throws -> ToolResult {
    let id = arguments["job_id"]?.text ?? ""
    let document = try await client.document(client.path(of: id)), job = try await client.job(id)
    var result = structured(document)
    if job.status == "succeeded", arguments["include_images"] != false {
      result.content = try await images.blocks(of: job).content + result.content
    }
    return result
  }

  private func jobs(_ arguments: JSONObject) async throws -> ToolResult {
    let limit = arguments["limit"]?.double.flatMap { Int(exactly: $0) } ?? 20
    return structured(try await client.document(client.jobsPath(limit: limit, after: arguments["after"]?.text)))
  }
}
