import Foundation
import GatewayAPI
import GatewayDispatch
import GatewayPipelines
import HTTPClient
import Journal
import Logging

/// Which addresses webhooks may have.
public struct WebhookRules: Hashable, Sendable {
  /// Whether there are webhooks at all.
  public var isEnabled = true
  /// Whether addresses may be without TLS.
  public var allowsHTTP = false
  /// What is connected to.
  public var addresses = AddressPolicy()

  /// HTTPS to public addresses.
  public init() {}

  /// A webhook as the journal keeps it.
  ///
  /// - Parameter tenantSecret: signs notifications of a webhook without a secret of its own.
  /// - Throws: when the server does not notify there. The addresses that a name stands for are looked at when the
  ///   connection is made.
  func stored(_ webhook: WebhookRequest, tenantSecret: String? = nil) throws(APIError) -> StoredWebhook {
    guard isEnabled else {
      throw APIError(.unsupportedValue, "webhook: this server notifies no webhooks", param: "webhook")
    }
    let url = webhook.url
    guard let scheme = ["https", "http"].first(where: { url.lowercased().hasPrefix("\($0)://") }) else {
      throw Self.wrong("is \"\(url.prefix(80))\", but must begin with https://")
    }
    guard scheme == "https" || allowsHTTP else {
      throw Self.wrong("is \"\(url.prefix(80))\", but this server notifies by https only")
    }
    let rest = url.dropFirst(scheme.count + 3)
    let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
    guard url.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "\\") && $0 != UInt8(ascii: "#") }),
      let authority = Authority(rest[..<end])
    else {
      throw Self.wrong(
        "is \"\(url.prefix(80))\", but must be scheme, host, perhaps a port, and a path, without user name and fragment"
      )
    }
    let address = IPAddress(authority.host.filter { $0 != "[" && $0 != "]" })
    let isAllowed =
      address.map { addresses.admits($0, of: authority.host) }
      ?? (!authority.isLoopback || addresses.hosts.contains(authority.host) || !addresses.networks.isEmpty)
    guard isAllowed else {
      throw Self.wrong("names \(authority.host), which is of a private or special network: it is not allowed here")
    }
    return StoredWebhook(
      url: url, host: authority.host, secret: webhook.secret ?? tenantSecret, events: webhook.events.map(\.rawValue))
  }

  private static func wrong(_ problem: String) -> APIError {
    APIError(.invalidValue, "webhook.url \(problem)", param: "webhook.url")
  }

  /// A client that connects to nothing else.
  func client(_ configuration: WebhookConfiguration) -> HTTPClient {
    HTTPClient(
      userAgent: "qwen-image-gateway", connectTimeout: configuration.timeout, maxRedirections: 0,
      maxConnectionsPerHost: configuration.maxPerHost, maxBufferedBytes: 16 << 10, addresses: addresses)
  }
}

/// The body of a notification.
struct WebhookPayload: Encodable {
  var type: String
  /// When it happened.
  var timestamp: String
  /// Of the steps; only in events about progress.
  var percent: Int?
  var data: JobBody

  init(_ due: DueDelivery, _ job: JobSnapshot, _ links: Links) {
    type = due.delivery.event
    let date = Date(timeIntervalSince1970: Double(due.delivery.createdAtMs) / 1000)
    timestamp = Date.ISO8601FormatStyle(includingFractionalSeconds: true).format(date)
    percent = due.delivery.percent > 0 ? due.delivery.percent : nil
    data = JobBody(job, links)
  }
}

extension WebhookSender {
  /// A sender whose notifications have the job as `/v1/jobs` shows it.
  public init(
    dispatcher: Dispatcher, configuration: WebhookConfiguration = WebhookConfiguration(), settings: HTTPSettings,
    logger: Logger
  ) {
    let links = Links(origin: settings.publicURL?.origin ?? "", prefix: settings.publicURL?.prefix.text ?? "")
    self.init(
      dispatcher: dispatcher, configuration: configuration, client: settings.webhooks.client(configuration),
      logger: logger
    ) { due, job in Array(try JSONOutput.encode(WebhookPayload(due, job, links))) }
  }
}
