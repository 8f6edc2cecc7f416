import Foundation
import Testing
import Transport

@Suite("Names of gateways", .timeLimit(.minutes(2)))
struct NameResolverTests {
  @Test("the system knows this machine, by IPv4 first, and says what it does not know")
  func system() async throws {
    #expect(try await SystemNameResolver().addresses(of: "localhost").contains("127.0.0.1"))
    #expect(try await SystemNameResolver().addresses(of: "127.0.0.9") == ["127.0.0.9"])
    #expect(try await SystemNameResolver().addresses(of: "::1") == ["::1"])
    let error = await #expect(throws: NameResolutionError.self) {
      try await SystemNameResolver().addresses(of: "no-such-host.invalid")
    }
    #expect(error?.name == "no-such-host.invalid" && error?.reason.isEmpty == false)
  }

  @Test(
    "what stands for one place, and what for as many as it has addresses",
    arguments: [
      ("tcp://gateway:5555", "gateway"), ("tcp://gateways.cluster_1.local:1", "gateways.cluster_1.local"),
      ("tcp://localhost:5555", "localhost"), ("tcp://10.0.0.1:5555", nil), ("tcp://[::1]:5555", nil),
      ("tcp://10.0.0.2:0;10.0.0.1:5555", nil), ("ipc:///run/gateway.sock", nil), ("inproc://gateway", nil),
    ])
  func names(text: String, name: String?) throws { #expect(try GatewayEndpoint(text).name == name) }

  @Test("a name's endpoints keep its port; plaintext beyond this machine is refused by the name")
  func endpoints() throws {
    let address = try GatewayEndpoint("tcp://gateway:5555")
    #expect(address.endpoint(at: "10.0.0.1") == "tcp://10.0.0.1:5555")
    #expect(address.endpoint(at: "fe80::1%eth0") == "tcp://[fe80::1%eth0]:5555")
    #expect(throws: TransportError.plaintextRefused(endpoint: "tcp://gateway:5555")) {
      try address.check(.plaintext())
    }
    try address.check(.plaintext(allowRemote: true))
    try GatewayEndpoint("tcp://localhost:5555").check(.plaintext())
    #expect(throws: TransportError.self) { try GatewayEndpoint("tcp://gateway") }
  }

  @Test("a dealer moves to where its gateway is now")
  func move() async throws {
    let (old, new) = (try await makeRouter(), try await makeRouter())
    let dealer = try await makeDealer(await old.endpoints[0])
    try await waitUntilConnected(dealer)
    await old.close()
    try await first(dealer.events) { if case .disconnected = $0 { () } else { nil } }
    try await dealer.move(to: await new.endpoints[0])
    try await waitUntilConnected(dealer)
    try await dealer.send(envelope(bytes: 100))
    #expect(try await nextMessage(new).envelope.tensors.first?.bytes.count == 100)
    await #expect(throws: TransportError.self) { try await dealer.move(to: "gateway") }
    await dealer.close()
    await new.close()
  }
}
