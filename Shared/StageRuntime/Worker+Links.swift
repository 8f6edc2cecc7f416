import Logging
import Transport

// Links come and go with the addresses of the gateways' names.

extension Worker {
  /// Where its links go, in the order of the text.
  package var linkEndpoints: [String] { links.values.map(\.endpoint).sorted() }
  /// Links whose gateways may send tasks.
  package var registeredLinks: Int { links.values.count { $0.registered != nil } }
  /// Answers that could not be sent yet.
  package var unsentAnswers: Int { pending.count }

  /// Opens the links whose addresses are known from the start, and has the names resolved.
  ///
  /// - Throws: `TransportError` when an address or a key is no good.
  func openLinks() async throws {
    let addresses = try configuration.gateways.map { text throws(TransportError) in try GatewayEndpoint(text) }
    for address in addresses { try address.check(configuration.security) }
    names = GatewayNames(addresses, every: .milliseconds(configuration.resolveIntervalMs))
    context = try TransportContext(ioThreads: configuration.transport.ioThreads)
    for endpoint in names.endpoints { try await openLink(to: endpoint) }
    askForNames()
  }

  private func openLink(to endpoint: String) async throws(TransportError) {
    var dealer = DealerConfiguration(endpoint: endpoint, security: configuration.security)
    dealer.options = configuration.transport
    dealer.context = context
    dealer.time = time
    dealer.logger = logger
    let socket = try await DealerSocket(dealer)
    let (stream, handled) = AsyncStream.makeStream(of: Void.self)
    lastLink += 1
    let id = LinkID(number: lastLink)
    links[id] = WorkerLink(endpoint: endpoint, socket: socket, handled: handled, heardAt: time.elapsed)
    newReaders.append(LinkReader(link: id, socket: socket, handled: stream))
  }

  // MARK: - Names

  /// Has the names that are due resolved. Nothing waits for that: a resolver may take its time.
  func askForNames() {
    for (index, name) in names.due(now: time.elapsed) {
      Task { [resolver = configuration.resolver, mailbox] in
        do throws(NameResolutionError) {
          mailbox.yield(.resolved(index, .success(try await resolver.addresses(of: name))))
        } catch {
          mailbox.yield(.resolved(index, .failure(error)))
        }
      }
    }
  }

  /// Takes the addresses of the gateway name number `index`.
  func take(_ result: Result<[String], NameResolutionError>, of index: Int) async {
    if case .failure(let error) = result {
      logger.warning("a gateway's name is not resolved", metadata: ["reason": "\(error)"])
    }
    if let change = names.note(try? result.get(), of: index, now: time.elapsed) {
      logger.info(
        "a gateway's name has other addresses",
        metadata: [
          "name": "\(names.text(of: index))", "added": "\(change.added)", "removed": "\(change.removed)",
        ])
      if change.isMove { await moveLink(from: change.removed[0], to: change.added[0]) }
    }
    await followNames()
  }

  /// The only gateway of a name is at another address: its link, if it is of no use as it is, goes there, and its tasks
  /// go with it. One that still serves is left alone: the gateways are two then.
  private func moveLink(from old: String, to new: String) async {
    guard let id = linkIDs.first(where: { links[$0]?.endpoint == old }), let link = links[id],
      link.registered == nil, !names.endpoints.contains(old), !linkIDs.contains(where: { links[$0]?.endpoint == new }),
      // A socket is of one family of addresses.
      old.contains("[") == new.contains("[")
    else { return }
    do throws(TransportError) {
      try await link.socket.move(to: new)
      links[id]?.endpoint = new
      links[id]?.renewed = nil
    } catch {
      logger.warning("a link cannot move", metadata: ["gateway": "\(new)", "error": "\(error)"])
    }
  }

  /// Opens the links that are missing. Those that no name leads to any more are closed when they are of no use.
  private func followNames() async {
    let wanted = names.endpoints
    for (id, link) in links { links[id]?.isWanted = wanted.contains(link.endpoint) }
    await closeUnwantedLinks()
    let existing = Set(links.values.map(\.endpoint))
    var left = 0
    for endpoint in wanted where !existing.contains(endpoint) {
      guard links.count < WorkerConfiguration.maxLinks else {
        left += 1
        continue
      }
      do throws(TransportError) {
        try await openLink(to: endpoint)
      } catch {
        logger.error("a gateway cannot be connected to", metadata: ["gateway": "\(endpoint)", "error": "\(error)"])
      }
    }
    guard left > 0 else { return }
    logger.error(
      "some gateways are not connected to: there are too many",
      metadata: ["left": "\(left)", "limit": "\(WorkerConfiguration.maxLinks)"])
  }

  // MARK: - Two ways to one gateway

  /// Whether a link to the gateway of this name is open.
  func hasSession(with gateway: String) -> Bool { links.values.contains { $0.registered?.gatewayID == gateway } }

  /// A gateway that a worker registers with again, over another link, ends the earlier session. That link is not used
  /// any more, or the two would end each other's sessions for ever.
  func retireTwin(of id: LinkID, _ gateway: String) async {
    let twins = linkIDs.filter { $0 != id && links[$0]?.registered?.gatewayID == gateway }
    guard !gateway.isEmpty, let twin = twins.first, let endpoint = links[twin]?.endpoint else { return }
    logger.warning(
      "a gateway is reached by two addresses, one is enough",
      metadata: ["gateway": "\(links[id]?.endpoint ?? "")", "unused": "\(endpoint)"])
    links[twin]?.session = .redundant(gatewayID: gateway)
    await yield(tasks(of: twin), to: id, claim: nil)
  }

  /// Closes links that lead nowhere, as soon as they have neither a session nor tasks.
  func closeUnwantedLinks() async {
    for id in linkIDs {
      guard let link = links[id], !link.isWanted, link.registered == nil, tasks(of: id).isEmpty else { continue }
      logger.info("a gateway is gone for good", metadata: ["gateway": "\(link.endpoint)"])
      links[id] = nil
      link.handled.finish()
      await link.socket.close()
    }
  }
}

/// What a link's reader needs.
struct LinkReader: Sendable {
  let link: LinkID
  let socket: DealerSocket
  let handled: AsyncStream<Void>

  /// Passes the socket's events on, one at a time, until it is closed.
  func run(_ mailbox: AsyncStream<Worker.Event>.Continuation) async {
    var handled = handled.makeAsyncIterator()
    for await event in socket.events {
      mailbox.yield(.link(link, event))
      guard await handled.next() != nil else { return }
    }
  }
}
