import AccessKeys
import Foundation
import GatewayDispatch
import GatewayPipelines
import Journal
import Logging
import Observability
import PostgreSQLJournal
import Settings
import TraceExport
import Transport

/// Everything that can be set about a gateway.
public struct GatewayConfiguration: SettingGroup {
  /// Where HTTP is served.
  public var host = "127.0.0.1"
  /// 0 takes any free port.
  public var port = 8080
  /// What one client may use up.
  public var http = HTTPLimits()
  /// For whom HTTP is served.
  public var server = HTTPSettings()
  /// Where workers connect.
  public var endpoints = ["tcp://127.0.0.1:5555"]
  /// The gateway's CURVE key pair; empty: no encryption.
  public var secretKeyFile = ""
  /// The directory with the public keys of workers that may join.
  public var allowedKeysDirectory = ""
  /// Whether workers may connect from other machines without encryption.
  public var allowsPlaintext = false
  /// The journal's file; "off": none, jobs are lost when the process ends.
  public var journalPath = GatewayConfiguration.defaultJournalPath
  /// The database with the journal, in place of the file; an empty `url`: none.
  public var sharedJournal = PostgreSQLSettings(url: "")
  /// How much the journal keeps, and for how long.
  public var journal = JournalLimits()
  /// Where the journal's large bytes are.
  public var objects = ObjectSettings()
  /// The file with the API's keys; empty: requests need none.
  public var apiKeysFile = ""
  /// How workers and jobs are treated.
  public var dispatcher = DispatcherConfiguration()
  /// What image files say about their origin.
  public var provenance = ProvenanceSettings()
  /// Where prompts and images are judged.
  public var filter = ContentFilterSettings()
  /// Where prompts are rewritten.
  public var enhancement = EnhancementSettings()
  /// How webhooks are notified.
  public var webhooks = WebhookConfiguration()
  /// Where spans go.
  public var tracing = TracingSettings()
  /// How long jobs may keep running after SIGTERM.
  public var shutdownGrace = Duration.seconds(30)
  /// The least important level that is logged.
  public var logLevel = Logger.Level.info
  /// How log lines look.
  public var logFormat = LogFormat.json

  /// The defaults.
  public init() {}

  /// Reads every setting; what is wrong is collected in `reader`.
  public mutating func read(_ reader: inout SettingReader) async {
    await readHTTP(&reader)
    await readModels(&reader)
    await readCluster(&reader)
    await readJobs(&reader)
    await readJournal(&reader)
    await objects.read(&reader)
    await provenance.read(&reader)
    await filter.read(&reader)
    await enhancement.read(&reader)
    await readWebhooks(&reader)
    await tracing.read(&reader)
    shutdownGrace = await reader.seconds(
      "shutdown.graceSeconds", shutdownGrace, in: 0...86_400, "how long jobs may keep running after SIGTERM")
    logLevel = await reader.choice("log.level", logLevel, "the least important level that is logged")
    logFormat = await reader.choice("log.format", logFormat, "how log lines look")
  }

  private mutating func readHTTP(_ reader: inout SettingReader) async {
    host = await reader.text("http.host", host, "address to serve HTTP on; 0.0.0.0 for all")
    port = await reader.integer("http.port", port, in: 0...65_535, "port to serve HTTP on; 0 takes any free one")
    apiKeysFile = await reader.text(
      "http.apiKeysFile", apiKeysFile,
      "file with a line for each API key, made by `qwen-image api-key`; without one, requests need no key")
    await readAddresses(&reader)
    await readHosts(&reader)
    http.maxConnections = await reader.integer(
      "http.maxConnections", http.maxConnections, in: 1...100_000, "connections at a time; more wait")
    http.maxConnectionsPerAddress = await reader.integer(
      "http.maxConnectionsPerAddress", http.maxConnectionsPerAddress, in: 1...100_000,
      "of them, of one address; more are closed")
    http.maxBodyBytes = await reader.integer(
      "http.maxBodyBytes", http.maxBodyBytes, in: 1024...(1 << 30), "the largest request body, with its images")
    http.maxBodiesBytes = await reader.integer(
      "http.maxBodiesBytes", http.maxBodiesBytes, in: 1024...(1 << 40),
      "all bodies together that are being read or decoded, at least http.maxBodyBytes; more get 429")
    http.images.maxPixels = await reader.integer(
      "http.maxImagePixels", http.images.maxPixels, in: 1024...ImageIntake.largestMaxPixels,
      "the most pixels of an image in a request")
    http.maxHeaderBytes = await reader.integer(
      "http.maxHeaderBytes", http.maxHeaderBytes, in: 1024...(1 << 20), "the header of one request")
    http.bodyTimeout = await reader.seconds(
      "http.bodyTimeoutSeconds", http.bodyTimeout, in: 0.1...3600, "a body that takes longer to arrive is refused")
    http.idleTimeout = await reader.seconds(
      "http.idleTimeoutSeconds", http.idleTimeout, in: 0.1...86_400,
      "a connection without a request for this long is closed")
    http.writeTimeout = await reader.seconds(
      "http.writeTimeoutSeconds", http.writeTimeout, in: 0.1...3600,
      "a connection on which an answer is not read for this long is closed")
    http.keepAliveInterval = await reader.seconds(
      "http.keepAliveSeconds", http.keepAliveInterval, in: 0.1...3600,
      "a silent event stream says this often that it is alive")
  }

  private mutating func readHosts(_ reader: inout SettingReader) async {
    let allowed = await reader.list(
      "http.allowedHosts", [],
      "hosts that requests may name in their Host field, besides localhost, 127.0.0.0/8, [::1] and that of "
        + "http.publicUrl: names or addresses without a port, separated by commas; * for any. Without it, a gateway "
        + "that listens on loopback takes those only, against DNS rebinding; one that listens elsewhere takes any")
    for name in allowed where name != "*" && !HostPolicy.isHost(name) {
      reader.complain("http.allowedHosts has \"\(name)\", but must be host names or IP addresses without a port, or *")
    }
    server.hosts = HostPolicy(bindHost: host, allowed: allowed, publicHost: server.publicURL?.host)
    let origins = await reader.list(
      "http.allowedOrigins", [],
      "origins whose web pages may use the API from a browser (CORS), such as http://localhost:3000, separated by "
        + "commas; * for all. Without it, only the gateway's own page may")
    for origin in origins where origin != "*" && !OriginPolicy.isOrigin(origin) {
      reader.complain(
        "http.allowedOrigins has \"\(origin)\", but must be SCHEME://HOST or SCHEME://HOST:PORT without a path, or *")
    }
    server.origins = OriginPolicy(allowed: origins)
  }

  private mutating func readAddresses(_ reader: inout SettingReader) async {
    let basePath = await reader.text(
      "http.basePath", "",
      "path below which a proxy that does not strip it passes requests on, such as /images; addresses in answers begin "
        + "with it. Requests without it, such as health checks, are served as well")
    if let prefix = PathPrefix(basePath), prefix.text != "/v1", !prefix.text.hasPrefix("/v1/") {
      server.basePath = prefix
    } else {
      reader.complain(
        "http.basePath is \"\(basePath)\", but must be a path such as /images, of letters, digits, '-', '.', '_', '~' "
          + "and '/', not below /v1"
      )
    }
    let publicURL = await reader.text(
      "http.publicUrl", "",
      "address at which clients see the gateway, such as https://images.example.org/qwen; addresses in answers begin "
        + "with it. Without it they begin with what the request was sent to")
    server.publicURL = PublicURL(publicURL)
    if server.publicURL == nil, !publicURL.isEmpty {
      reader.complain(
        "http.publicUrl is \"\(publicURL)\", but must be http:// or https:// with a host, and perhaps a port and a path"
      )
    }
    server.trustsForwarded = await reader.flag(
      "http.trustForwarded", server.trustsForwarded,
      "take the scheme, host and path that clients see from X-Forwarded-Proto, -Host and -Prefix; only behind a proxy "
        + "that sets them itself"
    )
  }

  private mutating func readModels(_ reader: inout SettingReader) async {
    let aliases = await reader.list(
      "models.aliases", [],
      "further names of models, for clients that have one built in: ALIAS=MODEL, such as dall-e-3=Qwen/Qwen-Image, "
        + "separated by commas"
    )
    for text in aliases {
      if let problem = server.aliases.add(text) { reader.complain("models.aliases has \"\(text)\", which \(problem)") }
    }
  }

  private mutating func readCluster(_ reader: inout SettingReader) async {
    endpoints = await reader.list(
      "cluster.endpoints", endpoints,
      "where workers connect: tcp://ADDRESS:PORT, with an IP address, an interface or localhost, or ipc://PATH, "
        + "separated by commas"
    )
    endpoints = endpoints.map { BindEndpoint.resolved($0) }
    for endpoint in endpoints {
      if let problem = BindEndpoint.problem(with: endpoint) {
        reader.complain("cluster.endpoints has \(endpoint), but \(problem)")
      }
    }
    secretKeyFile = await reader.text("cluster.secretKeyFile", secretKeyFile, "file with the gateway's CURVE key pair")
    allowedKeysDirectory = await reader.text(
      "cluster.allowedKeysDirectory", allowedKeysDirectory,
      "directory with the public keys (*.public) of workers that may join")
    allowsPlaintext = await reader.flag(
      "cluster.allowPlaintext", allowsPlaintext, "let workers connect from other machines without encryption")
    dispatcher.heartbeatInterval = await reader.seconds(
      "cluster.heartbeatSeconds", dispatcher.heartbeatInterval, in: 0.05...600, "how often workers report")
    dispatcher.scheduling.lease = await reader.seconds(
      "cluster.leaseSeconds", dispatcher.scheduling.lease, in: 0.1...3600,
      "a worker that is silent for this long is lost")
    if dispatcher.scheduling.lease < dispatcher.heartbeatInterval * 2 {
      reader.complain(
        "cluster.leaseSeconds must be at least twice cluster.heartbeatSeconds, or every worker is lost again and again")
    }
    if endpoints.isEmpty { reader.complain("cluster.endpoints is empty: workers could not connect") }
    if secretKeyFile.isEmpty != allowedKeysDirectory.isEmpty {
      reader.complain("cluster.secretKeyFile and cluster.allowedKeysDirectory go together")
    }
  }

  private mutating func readJournal(_ reader: inout SettingReader) async {
    journalPath = await reader.text(
      "journal.path", journalPath, "file in which jobs and results outlive the process; \"off\" keeps them in memory")
    await sharedJournal.read(&reader)
    dispatcher.journalLease = .seconds(sharedJournal.leaseSeconds)
    journal.maxBytes = Int64(
      await reader.integer(
        "journal.maxBytes", Int(journal.maxBytes), in: 0...(1 << 50),
        "size that the file, with objects that are files, must not exceed; 0: any"))
    journal.reserveBytes = Int64(
      await reader.integer(
        "journal.reserveBytes", Int(journal.reserveBytes), in: 0...(1 << 40),
        "space reserved so that jobs can end when the disk is full; new jobs are refused with 507 while there is less"
      ))
    journal.retentionSeconds = Int64(
      await reader.integer(
        "journal.retentionSeconds", Int(journal.retentionSeconds), in: 1...(1 << 32),
        "how long jobs that have ended are kept"))
    journal.retentionBytes = Int64(
      await reader.integer(
        "journal.retentionBytes", Int(journal.retentionBytes), in: 0...(1 << 50),
        "total size of the images that are kept; the oldest are removed first"))
    if journal.maxBytes > 0, journal.maxBytes < 2 * journal.reserveBytes {
      reader.complain("journal.maxBytes must be at least twice journal.reserveBytes, or no job would be taken")
    }
  }

  private mutating func readJobs(_ reader: inout SettingReader) async {
    var scheduling = dispatcher.scheduling
    scheduling.maxJobs = await reader.integer(
      "jobs.maxCount", scheduling.maxJobs, in: 1...100_000,
      "images that are queued or in progress; more are refused with 429")
    scheduling.encodeAheadJobs = await reader.integer(
      "jobs.encodeAheadCount", scheduling.encodeAheadJobs, in: 1...10_000,
      "jobs for which no denoiser is free yet whose prompts are encoded already")
    scheduling.maxCacheBytes = await reader.integer(
      "jobs.promptCacheBytes", scheduling.maxCacheBytes, in: 0...(1 << 40), "encoded prompts kept for later requests")
    scheduling.maxAttempts = await reader.integer(
      "jobs.maxAttempts", scheduling.maxAttempts, in: 1...100,
      "failures in a row, without a step done, after which a job fails")
    scheduling.acceptLimit = await reader.seconds(
      "jobs.acceptSeconds", scheduling.acceptLimit, in: 0.1...3600,
      "a task that no worker accepts for this long is offered again")
    scheduling.firstStepLimit = await reader.seconds(
      "jobs.firstStepSeconds", scheduling.firstStepLimit, in: 0.1...1e6,
      "the first step, encoding or decoding may take this long")
    scheduling.stepLimit = await reader.seconds(
      "jobs.stepSeconds", scheduling.stepLimit, in: 0.1...1e6,
      "a later step may take this long, or jobs.stepSlowdown times the slowest so far")
    scheduling.stepSlowdown = await reader.number(
      "jobs.stepSlowdown", scheduling.stepSlowdown, in: 1...1000, "see jobs.stepSeconds")
    let slowWorkerFactor = await reader.number(
      "jobs.slowWorkerFactor", scheduling.slowWorkerFactor ?? 0, in: 0...1000,
      "a task moves to a free worker whose steps take so many times less than those of its own; 0: never")
    scheduling.slowWorkerFactor = slowWorkerFactor > 0 ? slowWorkerFactor : nil
    let assistedStepDuration = await reader.seconds(
      "jobs.assistedStepSeconds", scheduling.assistedStepDuration ?? .zero, in: 0...1e6,
      "an idle denoiser makes half of the predictions of another one whose guided steps take this long; 0: never")
    scheduling.assistedStepDuration = assistedStepDuration > .zero ? assistedStepDuration : nil
    scheduling.modelPatience = await reader.seconds(
      "jobs.modelPatienceSeconds", scheduling.modelPatience, in: 0...1e6,
      "jobs of a model that no worker has loaded wait this long for workers that are needed for another one")
    scheduling.modelSwitchLimit = await reader.seconds(
      "jobs.modelSwitchSeconds", scheduling.modelSwitchLimit, in: 1...1e6,
      "loading a model may take a worker this long until another one is asked")
    dispatcher.scheduling = scheduling
    dispatcher.drainTarget = await reader.seconds(
      "metrics.drainTargetSeconds", dispatcher.drainTarget, in: 1...1e6,
      "qwenimage_stage_workers_wanted asks for enough workers to have what waits done within this time")
    dispatcher.maxInputBytes = await reader.integer(
      "jobs.maxInputBytes", dispatcher.maxInputBytes, in: 0...(1 << 40),
      "bytes of the decoded images that open jobs begin with")
    dispatcher.maxTenantInputBytes = await reader.integer(
      "jobs.maxTenantInputBytes", dispatcher.maxTenantInputBytes, in: 0...(1 << 40),
      "of them, those of one tenant")
    dispatcher.jobTimeout = await reader.seconds(
      "jobs.timeoutSeconds", dispatcher.jobTimeout, in: 1...1e7, "a job that takes longer fails")
    dispatcher.checkpointInterval = await reader.seconds(
      "jobs.checkpointSeconds", dispatcher.checkpointInterval, in: 0...3600,
      "denoisers send their latents back at the end of a step, when the last ones are this old; 0: of every step")
  }
}

extension GatewayConfiguration {
  /// Below the directory in which systemd or the user keeps what programs remember.
  public static var defaultJournalPath: String {
    let environment = ProcessInfo.processInfo.environment
    if let directory = environment["STATE_DIRECTORY"]?.split(separator: ":").first {
      return "\(directory)/gateway.journal"
    }
    let home = environment["HOME"] ?? NSTemporaryDirectory()
    return "\(environment["XDG_STATE_HOME"] ?? "\(home)/.local/state")/qwen-image/gateway.journal"
  }

  /// Opens the journal with its objects.
  func openJournal(logger: Logger) throws(JournalError) -> any JournalStore {
    if !sharedJournal.url.isEmpty {
      let store = try PostgreSQLJournalStore(sharedJournal, limits: journal)
      return try objects.opened(store, path: nil, logger: logger)
    }
    let path = journalPath == "off" ? nil : journalPath
    return try objects.opened(SQLiteJournalStore(path: path, limits: journal), path: path, logger: logger)
  }

  /// Reads the API's keys; nil: requests need none.
  func readKeys(logger: Logger) throws(AccessFileError) -> Keyring? {
    guard !apiKeysFile.isEmpty else { return nil }
    return try Keyring(path: apiKeysFile, logger: logger)
  }

  /// How workers are authenticated.
  public func routerSecurity() throws(TransportError) -> RouterSecurity {
    guard !secretKeyFile.isEmpty else { return .plaintext(allowRemote: allowsPlaintext) }
    return .curve(
      try CurveKeyPair(contentsOf: secretKeyFile), allowList: try CurveAllowList(directory: allowedKeysDirectory))
  }
}
