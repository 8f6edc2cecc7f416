import CCurl
import Foundation
import Synchronization

/// The thread that drives all exchanges of a client.
final class TransferLoop: Sendable {
  struct Options: Sendable {
    var userAgent: String
    var connectTimeout: Duration
    var silenceTimeout: Duration?
    var maxRedirections: Int
    var maxConnectionsPerHost: Int
    var maxBufferedBytes: Int
    /// What may be connected to; nil: any address.
    var addresses: AddressPolicy?
    /// A file of certificates to trust instead of the machine's.
    var authorities: String?
  }

  private struct State {
    var submitted: [(request: HTTPClient.Request, transfer: Transfer)] = []
    var isShutDown = false
    var hasEnded = false
  }

  private static let initialised = curl_global_init(Int(CURL_GLOBAL_SSL))
  private static let idleMs: CInt = 60_000

  let options: Options
  private let state = Mutex(State())
  // libcurl lets other threads call curl_multi_wakeup only, which they do under the lock, before the thread has freed
  // it.
  nonisolated(unsafe) private let multi: UnsafeMutableRawPointer

  init(_ options: Options) {
    precondition(Self.initialised == CURLE_OK, "libcurl cannot be initialised")
    guard let multi = curl_multi_init() else { preconditionFailure("libcurl cannot begin") }
    ccurl_set_multi_integer(multi, CURLMOPT_MAX_HOST_CONNECTIONS, options.maxConnectionsPerHost)
    self.options = options
    self.multi = multi
  }

  func start() {
    let thread = Thread { self.run() }
    thread.name = "http-client"
    thread.start()
  }

  /// Begins an exchange.
  func submit(_ request: HTTPClient.Request, _ transfer: Transfer) {
    let isAccepted = state.withLock { state in
      if !state.isShutDown { state.submitted.append((request, transfer)) }
      return !state.isShutDown
    }
    guard isAccepted else { return transfer.finish(.failure(Self.shutDownError)) }
    wakeUp()
  }

  func shutDown() {
    state.withLock { $0.isShutDown = true }
    wakeUp()
  }

  /// Has the thread look around.
  func wakeUp() {
    state.withLock { state in
      if !state.hasEnded { _ = curl_multi_wakeup(multi) }
    }
  }

  private static let shutDownError = HTTPClientError(kind: .broken, message: "the client has been shut down")

  // MARK: - The thread

  private func run() {
    // TLS writes to sockets by way of write(2), which would end the process when the server has gone.
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, SIGPIPE)
    pthread_sigmask(SIG_BLOCK, &signals, nil)

    var exchanges: [UnsafeMutableRawPointer: Exchange] = [:]
    func end(_ exchange: Exchange, _ result: Result<Void, any Error>) {
      curl_multi_remove_handle(multi, exchange.easy)
      exchanges[exchange.easy] = nil
      exchange.transfer.finish(result)
    }
    while true {
      let (submitted, isShutDown) = state.withLock { state in
        defer { state.submitted = [] }
        return (state.submitted, state.isShutDown)
      }
      for (request, transfer) in submitted {
        let exchange = Exchange(request, transfer, options)
        exchanges[exchange.easy] = exchange
        curl_multi_add_handle(multi, exchange.easy)
      }
      for exchange in Array(exchanges.values) {
        if isShutDown {
          end(exchange, .failure(Self.shutDownError))
        } else if exchange.transfer.isCancelled {
          end(exchange, .failure(CancellationError()))
        } else if exchange.transfer.takeResumption() {
          exchange.heardAt = .now
          curl_easy_pause(exchange.easy, 0)
        }
      }
      if isShutDown { break }
      var running: CInt = 0
      curl_multi_perform(multi, &running)
      var left: CInt = 0
      while let message = curl_multi_info_read(multi, &left) {
        guard message.pointee.msg == CURLMSG_DONE, let easy = message.pointee.easy_handle,
          let exchange = exchanges[easy]
        else { continue }
        let code = message.pointee.data.result
        let error =
          exchange.refusal(for: code)
          ?? HTTPClientError(code, exchange.message(for: code), isConnected: ccurl_is_connected(easy))
        end(exchange, code == CURLE_OK ? .success(()) : .failure(error))
      }
      var waitMs = Self.idleMs
      if let limit = options.silenceTimeout {
        for exchange in Array(exchanges.values) where !exchange.transfer.isPaused {
          let left = limit - (.now - exchange.heardAt)
          if left <= .zero {
            end(exchange, .failure(HTTPClientError(kind: .timedOut, message: "nothing came for \(limit)")))
          }
          waitMs = min(waitMs, CInt(clamping: Int(left / .milliseconds(1)) + 1))
        }
      }
      curl_multi_poll(multi, nil, 0, max(0, waitMs), nil)
    }
    state.withLock { $0.hasEnded = true }
    curl_multi_cleanup(multi)
  }
}

/// One exchange as libcurl sees it. Used by the loop's thread only.
private final class Exchange {
  let easy: UnsafeMutableRawPointer
  let transfer: Transfer
  private var headers: UnsafeMutablePointer<curl_slist>?
  private let errorText = UnsafeMutablePointer<CChar>.allocate(capacity: Int(CURL_ERROR_SIZE))
  private var fields: [(name: String, value: String)] = []
  private var fieldBytes = 0
  private let maxRedirections: Int
  private let addresses: AddressPolicy?
  /// Whether the host has an address that must not be connected to.
  private var hasRefusedAddress = false
  /// When the server last sent something, or the exchange began.
  var heardAt = ContinuousClock.now

  init(_ request: HTTPClient.Request, _ transfer: Transfer, _ options: TransferLoop.Options) {
    guard let easy = curl_easy_init() else { preconditionFailure("libcurl cannot begin an exchange") }
    self.easy = easy
    self.transfer = transfer
    maxRedirections = options.maxRedirections
    addresses = options.addresses
    errorText.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    ccurl_set_pointer(easy, CURLOPT_ERRORBUFFER, errorText)
    ccurl_set_string(easy, CURLOPT_URL, request.url)
    ccurl_set_integer(easy, CURLOPT_PATH_AS_IS, 1)
    ccurl_restrict_protocols(easy)
    ccurl_set_integer(easy, CURLOPT_NOSIGNAL, 1)
    ccurl_set_string(easy, CURLOPT_PROXY, "")
    ccurl_set_string(easy, CURLOPT_USERAGENT, options.userAgent)
    ccurl_set_integer(easy, CURLOPT_CONNECTTIMEOUT_MS, options.connectTimeout.milliseconds)
    if let timeout = request.timeout { ccurl_set_integer(easy, CURLOPT_TIMEOUT_MS, timeout.milliseconds) }
    ccurl_set_integer(easy, CURLOPT_FOLLOWLOCATION, maxRedirections > 0 ? 1 : 0)
    ccurl_set_integer(easy, CURLOPT_MAXREDIRS, maxRedirections)
    if let authorities = options.authorities { ccurl_set_string(easy, CURLOPT_CAINFO, authorities) }
    if let body = request.body {
      ccurl_set_integer(easy, CURLOPT_POST, 1)
      ccurl_set_body(easy, body, curl_off_t(body.count))
    }
    if request.method == "HEAD" {
      ccurl_set_integer(easy, CURLOPT_NOBODY, 1)
    } else if request.method != (request.body == nil ? "GET" : "POST") {
      ccurl_set_string(easy, CURLOPT_CUSTOMREQUEST, request.method)
    }
    // A name and a colon keep libcurl from sending the field by itself; a name and a semicolon send it without a value.
    for line in request.headers.map({ $0.value.isEmpty ? "\($0.name);" : "\($0.name): \($0.value)" }) + ["Expect:"] {
      headers = curl_slist_append(headers, line) ?? headers
    }
    ccurl_set_headers(easy, headers)
    ccurl_set_callbacks(easy, Self.onHeader, Self.onBody, Unmanaged.passUnretained(self).toOpaque())
    if addresses != nil { ccurl_set_socket_opener(easy, Self.onSocket, Unmanaged.passUnretained(self).toOpaque()) }
  }

  deinit {
    curl_easy_cleanup(easy)
    curl_slist_free_all(headers)
    errorText.deallocate()
  }

  /// The error of a connection that was not made because of its address; nil: that was not the reason. It does not name
  /// the address, which may be for this machine to know only.
  func refusal(for code: CURLcode) -> HTTPClientError? {
    guard hasRefusedAddress, code == CURLE_COULDNT_CONNECT else { return nil }
    return HTTPClientError(
      kind: .forbiddenAddress, message: "the host has an address of a private or special network, which is not allowed")
  }

  /// The host of the address of the exchange, as libcurl reads it.
  private var host: String {
    var address: UnsafeMutablePointer<CChar>?
    ccurl_address(easy, &address)
    guard let address, let parts = curl_url() else { return "" }
    defer { curl_url_cleanup(parts) }
    var host: UnsafeMutablePointer<CChar>?
    guard curl_url_set(parts, CURLUPART_URL, address, 0) == CURLUE_OK,
      curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK, let host
    else { return "" }
    defer { curl_free(host) }
    return String(cString: host)
  }

  /// Makes the socket of a connection, unless its address is not allowed.
  private static let onSocket: curl_opensocket_callback = { context, _, address in
    guard let context, let address else { return CURL_SOCKET_BAD }
    let exchange = Unmanaged<Exchange>.fromOpaque(context).takeUnretainedValue()
    let start = MemoryLayout<curl_sockaddr>.offset(of: \.addr) ?? 0
    let bytes = UnsafeRawBufferPointer(
      start: UnsafeRawPointer(address).advanced(by: start), count: Int(address.pointee.addrlen))
    guard let ip = IPAddress(bytes), exchange.addresses?.admits(ip, of: exchange.host) ?? true else {
      exchange.hasRefusedAddress = true
      return CURL_SOCKET_BAD
    }
    return socket(
      address.pointee.family, address.pointee.socktype | CInt(SOCK_CLOEXEC.rawValue), address.pointee.protocol)
  }

  func message(for code: CURLcode) -> String {
    let text = errorText[0] == 0 ? String(cString: curl_easy_strerror(code)) : String(cString: errorText)
    let systemError = CInt(ccurl_system_error(easy))
    return systemError == 0 ? text : "\(text): \(String(cString: strerror(systemError)))"
  }

  /// Of all headers of an exchange together.
  private static let maxHeaderBytes = 1 << 20

  /// One line of the header.
  private static let onHeader: curl_write_callback = { start, size, count, context in
    let exchange = Unmanaged<Exchange>.fromOpaque(context!).takeUnretainedValue()
    exchange.heardAt = .now
    exchange.fieldBytes += size * count
    guard exchange.fieldBytes <= Exchange.maxHeaderBytes else { return 0 }
    exchange.receiveHeader(UnsafeRawBufferPointer(start: start, count: size * count))
    return size * count
  }

  private static let onBody: curl_write_callback = { start, size, count, context in
    let exchange = Unmanaged<Exchange>.fromOpaque(context!).takeUnretainedValue()
    exchange.heardAt = .now
    let chunk = Array(UnsafeRawBufferPointer(start: start, count: size * count))
    return exchange.transfer.receive(chunk) ? chunk.count : Int(CURL_WRITEFUNC_PAUSE)
  }

  private func receiveHeader(_ line: UnsafeRawBufferPointer) {
    let text = String(decoding: line, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
    if text.lowercased().hasPrefix("http/") {
      fields = []
    } else if !text.isEmpty {
      guard let colon = text.firstIndex(of: ":") else { return }
      fields.append((String(text[..<colon]), text[text.index(after: colon)...].trimmingCharacters(in: .whitespaces)))
    } else {
      let status = ccurl_status(easy)
      // After these another header comes.
      let isRedirection =
        maxRedirections > 0 && (300..<400).contains(status) && fields.contains { $0.name.lowercased() == "location" }
      if status >= 200, !isRedirection { transfer.receive(ResponseHead(status: status, headers: fields)) }
    }
  }
}

extension Duration {
  /// In milliseconds, at least one.
  fileprivate var milliseconds: Int { max(1, Int(self / .milliseconds(1))) }
}
