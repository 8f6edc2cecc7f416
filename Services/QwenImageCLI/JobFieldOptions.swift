import ArgumentParser
import Foundation
import StrictJSON

/// What a request says of its job, beside what the image is made of. Limits are for the gateway to say.
struct JobFieldOptions: ParsableArguments {
  @OptionGroup var adapters: NamedAdapterOptions

  @Option(help: "interactive or batch; batch jobs wait until no interactive one does.")
  var priority: String?

  @Option(
    help: """
      When the job fails if it is not done: a time such as 2027-01-31T18:00:00Z, or seconds since 1970. Default: after \
      what the gateway allows.
      """, transform: Deadline.init(text:))
  var deadline: Deadline?

  @Option(parsing: .unconditional, help: "The same as seconds from now on.")
  var jobTimeout: Double?

  @Option(help: "A word by which the job is found. Repeat it for several.")
  var tag: [String] = []

  @Option(
    help: "KEY=VALUE, which the job keeps. Repeat it for several.", transform: MetadataEntry.init(text:))
  var metadata: [MetadataEntry] = []

  @Option(help: "An https address that is notified of the job.")
  var webhook: String?

  @Option(
    help: """
      What notifications are signed with, whsec_ and base64. Default: the environment's QWEN_IMAGE_WEBHOOK_SECRET, \
      else the tenant's.
      """)
  var webhookSecret: String?

  @Option(
    help: """
      Of what the webhook is notified: job.started, job.progress, job.completed, job.failed or job.cancelled. Repeat \
      it for several. Default: of the end.
      """)
  var webhookEvent: [String] = []

  func validate() throws {
    guard deadline == nil || jobTimeout == nil else {
      throw ValidationError("--deadline and --job-timeout are both there; give one of them")
    }
    if let jobTimeout, !jobTimeout.isFinite {
      throw ValidationError("--job-timeout is \(jobTimeout); it must be a finite number")
    }
    guard webhook != nil || webhookSecret == nil && webhookEvent.isEmpty else {
      throw ValidationError("--webhook is missing: the address to notify")
    }
    var keys: Set<String> = []
    for entry in metadata where !keys.insert(entry.key).inserted {
      throw ValidationError("--metadata has the key \(entry.key) twice")
    }
  }

  /// The address to notify, with what belongs to it.
  private var webhookBody: GatewayClient.Body.Webhook? {
    webhook.map { url in
      let inherited = ProcessInfo.processInfo.environment["QWEN_IMAGE_WEBHOOK_SECRET"] ?? ""
      return GatewayClient.Body.Webhook(
        url: url, secret: webhookSecret ?? (inherited.isEmpty ? nil : inherited),
        events: webhookEvent.isEmpty ? nil : webhookEvent)
    }
  }

  /// Adds the fields to a request; those that are not given stay absent, since an older gateway may not know them.
  func add(to body: inout GatewayClient.Body) {
    (body.priority, body.deadline, body.timeoutSeconds) = (priority, deadline?.secondsSince1970, jobTimeout)
    if !tag.isEmpty { body.tags = tag }
    if !metadata.isEmpty {
      body.metadata = Dictionary(metadata.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })
    }
    body.webhook = webhookBody
    adapters.add(to: &body)
  }

  /// The same for a form, in which lists and objects are JSON.
  func add(to form: inout UploadForm) {
    form.add("priority", priority)
    form.add("deadline", deadline?.secondsSince1970)
    form.add("timeout_seconds", jobTimeout)
    if !tag.isEmpty { form.add("tags", JSON.array(tag.map { .string($0) })) }
    if !metadata.isEmpty {
      form.add(
        "metadata",
        JSON.object(JSONObject(metadata.map { ($0.key, .string($0.value)) }, uniquingKeysWith: { $1 })))
    }
    adapters.add(to: &form)
    guard let webhookBody else { return }
    var members: JSONObject = ["url": .string(webhookBody.url)]
    members["secret"] = webhookBody.secret.map { .string($0) }
    members["events"] = webhookBody.events.map { .array($0.map { .string($0) }) }
    form.add("webhook", JSON.object(members))
  }
}

/// A time at which a job fails if it is not done.
struct Deadline: Equatable, Sendable {
  let secondsSince1970: Int

  /// - Throws: `ValidationError` when it is no time.
  init(text: String) throws {
    if let seconds = Int(text) {
      secondsSince1970 = seconds
    } else if let date = try? Date(text, strategy: .iso8601) {
      secondsSince1970 = Int(date.timeIntervalSince1970.rounded(.down))
    } else {
      throw ValidationError(
        "\"\(text.prefix(40))\" is no time; write it as 2027-01-31T18:00:00Z, or as seconds since 1970")
    }
  }
}

/// A member of a job's metadata.
struct MetadataEntry: Equatable, Sendable {
  let key: String
  let value: String

  /// - Throws: `ValidationError` when it has no key.
  init(text: String) throws {
    guard let sign = text.firstIndex(of: "="), sign > text.startIndex else {
      throw ValidationError("\"\(text.prefix(40))\" is not KEY=VALUE")
    }
    key = String(text[..<sign])
    value = String(text[text.index(after: sign)...])
  }
}

extension UploadForm {
  /// Adds a field whose value is JSON.
  mutating func add(_ name: String, _ value: JSON) {
    add(name, String(decoding: value.bytes, as: UTF8.self))
  }
}
