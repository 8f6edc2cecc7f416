import Foundation
import HTTPClient
import Testing

@Suite("Addresses that a client may connect to", .timeLimit(.minutes(2)))
struct AddressPolicyTests {
  @Test(arguments: [
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "11.0.0.1", "198.17.0.1",
    "223.255.255.255", "192.0.1.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
    "2001:200::1", "3fff:1000::1",
  ]) func publicOnes(text: String) throws {
    #expect(try #require(IPAddress(text)).isPublic)
  }

  @Test(arguments: [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.1", "192.0.2.1", "192.88.99.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1",
    "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
    "2002:808:808::1", "3fff::1", "fc00::1", "fd12:3456::1", "fe80::1", "fec0::1", "ff02::1", "5f00::1", "4000::1",
  ]) func specialOnes(text: String) throws {
    #expect(try !#require(IPAddress(text)).isPublic)
  }

  @Test(arguments: [
    "", "localhost", "1.2.3", "1.2.3.4.5", "01.2.3.4", "0x7f.0.0.1", "2130706433", "[::1]", "::1%lo", "1.2.3.4 ",
  ])
  func whatIsNoAddress(text: String) { #expect(IPAddress(text) == nil) }

  @Test func networksContainTheirAddresses() throws {
    let network = try #require(IPNetwork("10.1.128.0/17"))
    for (text, isInside) in [
      ("10.1.128.0", true), ("10.1.255.255", true), ("10.1.127.255", false), ("10.2.128.0", false),
    ] {
      #expect(try network.contains(#require(IPAddress(text))) == isInside)
    }
    #expect(try !network.contains(#require(IPAddress("fd00::1"))))
    #expect(try #require(IPNetwork("0.0.0.0/0")).contains(#require(IPAddress("9.9.9.9"))))
    #expect(try #require(IPNetwork("fd00::/8")).contains(#require(IPAddress("fdff::1"))))
    #expect(try #require(IPNetwork("127.0.0.1")).contains(#require(IPAddress("::ffff:127.0.0.1"))))
    for text in ["10.1.0.0/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "x/8", "", "fd00::/129", "10.0.0.0/+8"] {
      #expect(IPNetwork(text) == nil, "\(text)")
    }
  }

  private static func client(_ policy: AddressPolicy) -> HTTPClient {
    HTTPClient(userAgent: "test", connectTimeout: .seconds(5), maxRedirections: 0, addresses: policy, environment: [:])
  }

  private static func server() -> ScriptedServer {
    ScriptedServer { connection in
      while connection.readRequest() != nil { connection.write("HTTP/1.1 204 No Content\r\n\r\n") }
    }
  }

  /// However an address is written, and whatever a name stands for: what counts is where the connection leads.
  @Test(arguments: [
    "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "0", "[::ffff:127.0.0.1]",
  ])
  func loopbackIsNotConnectedTo(host: String) async throws {
    let server = Self.server()
    let error = await #expect(throws: HTTPClientError.self) {
      try await Self.client(AddressPolicy()).execute(.init("http://\(host):\(server.port)/", timeout: .seconds(5)))
    }
    #expect(error?.kind == .forbiddenAddress, "\(host): \(String(describing: error))")
    #expect(error?.message.contains("127") == false)
    #expect(server.connectionCount == 0)
  }

  @Test func namesAndNetworksAreAllowed() async throws {
    let server = Self.server()
    let loopback = AddressPolicy(networks: [try #require(IPNetwork("127.0.0.0/8"))])
    for host in ["127.0.0.1", "localhost"] {
      let url = "http://\(host):\(server.port)/"
      #expect(try await Self.client(loopback).execute(.init(url, timeout: .seconds(5))).status == 204)
      #expect(
        try await Self.client(AddressPolicy(hosts: [host])).execute(.init(url, timeout: .seconds(5))).status == 204)
    }
    let other = AddressPolicy(hosts: ["example.org"], networks: [try #require(IPNetwork("10.0.0.0/8"))])
    await #expect(throws: HTTPClientError.self) {
      try await Self.client(other).execute(.init(server.url(), timeout: .seconds(5)))
    }
    // The name of the request counts, not what stands in front of it.
    let error = await #expect(throws: HTTPClientError.self) {
      try await Self.client(other).execute(.init("http://example.org@127.0.0.1:\(server.port)/", timeout: .seconds(5)))
    }
    #expect(error?.kind == .forbiddenAddress)
  }

  @Test func aRedirectionToLoopbackIsNotFollowed() async throws {
    let server = Self.server()
    let first = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:\(server.port)/\r\ncontent-length: 0\r\n\r\n")
    }
    let following = HTTPClient(
      userAgent: "test", maxRedirections: 5, addresses: AddressPolicy(hosts: ["localhost"]), environment: [:])
    await #expect(throws: HTTPClientError.self) {
      try await following.execute(.init("http://localhost:\(first.port)/", timeout: .seconds(5)))
    }
    #expect(server.connectionCount == 0)
  }

  @Test func anEndlessHeaderIsCutOff() async throws {
    let server = ScriptedServer { connection in
      _ = connection.readRequest()
      connection.write("HTTP/1.1 200 OK\r\n")
      while connection.write("x: \(String(repeating: "y", count: 1000))\r\n") {}
    }
    await #expect(throws: HTTPClientError.self) {
      try await Self.client(AddressPolicy(hosts: ["127.0.0.1"])).execute(.init(server.url(), timeout: .seconds(60)))
    }
  }
}
