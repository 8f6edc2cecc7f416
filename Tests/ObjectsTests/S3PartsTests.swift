import Foundation
import Hashing
import Objects
import Testing

@Suite("Parts of the S3 protocol")
struct S3PartsTests {
  private static let empty = hexadecimal(SHA256.hash([]))

  private static func signature(
    _ method: String, _ host: String, _ path: String, query: [(String, String)] = [],
    headers: [(String, String)] = [], body: String = "", token: String? = nil, date: Double,
    id: String, secret: String, region: String
  ) -> (signature: String, names: String) {
    let signer = S3Signature(
      credentials: S3Credentials(accessKeyID: id, secretAccessKey: secret, sessionToken: token), region: region)
    let fields = signer.headers(
      method: method, host: host, path: path, query: query, headers: headers,
      payloadSHA256: hexadecimal(SHA256.hash(body.utf8)), date: Date(timeIntervalSince1970: date))
    let parts = fields.last!.value.components(separatedBy: ", ")
    return (String(parts[2].dropFirst("Signature=".count)), String(parts[1].dropFirst("SignedHeaders=".count)))
  }

  /// The examples of Amazon's document "Authenticating Requests: Using the Authorization Header".
  @Test(
    arguments: [
      (
        "GET", "/test.txt", [], [("range", "bytes=0-9")], "",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
      ),
      (
        "PUT", "/test$file.text", [],
        [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")],
        "Welcome to Amazon S3.", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
      ),
      ("GET", "/", [("lifecycle", "")], [], "", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
      (
        "GET", "/", [("prefix", "J"), ("max-keys", "2")], [], "",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
      ),
    ] as [(String, String, [(String, String)], [(String, String)], String, String)])
  func publishedSignatures(
    method: String, path: String, query: [(String, String)], headers: [(String, String)], body: String,
    signature: String
  ) {
    let found = Self.signature(
      method, "examplebucket.s3.amazonaws.com", path, query: query, headers: headers, body: body,
      date: 1_369_353_600, id: "AKIAIOSFODNN7EXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
      region: "us-east-1")
    #expect(found.signature == signature)
  }

  /// Values of botocore 1.44.8's S3SigV4Auth.
  @Test func signaturesOfBotocore() {
    let (id, secret) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    let put = Self.signature(
      "PUT", "s3.example.org:9000", "/bucket/a b/ü~x",
      headers: [
        ("content-type", "application/octet-stream"),
        ("x-amz-checksum-sha256", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="),
      ], body: "abc", date: 1_795_993_200, id: id, secret: secret, region: "eu-central-1")
    #expect(put.signature == "4c4ccb0561e1d238631330433b32d3adf5f85a0bb8779c70ba816384e8022f2b")
    #expect(put.names == "content-type;host;x-amz-checksum-sha256;x-amz-content-sha256;x-amz-date")
    let list = Self.signature(
      "GET", "bucket.s3.example.org", "/",
      query: [("list-type", "2"), ("max-keys", "1000"), ("prefix", "a/b c"), ("start-after", "a/b c/00+")],
      token: "to/ken+==", date: 1_795_993_200, id: id, secret: secret, region: "eu-central-1")
    #expect(list.signature == "f6a01ef2ace465fc357035b3148221c0130b3de31b38cbeb935af90501fdc490")
    #expect(list.names == "host;x-amz-content-sha256;x-amz-date;x-amz-security-token")
  }

  @Test func times() {
    #expect(S3Signature.timestamp(Date(timeIntervalSince1970: 1_369_353_600)) == "20130524T000000Z")
    #expect(S3XML.date("2013-05-24T00:00:00.000Z")?.timeIntervalSince1970 == 1_369_353_600)
    #expect(S3XML.date("Fri, 24 May 2013 00:00:00 GMT")?.timeIntervalSince1970 == 1_369_353_600)
    #expect(S3XML.date("2026-11-29T23:00:00Z")?.timeIntervalSince1970 == 1_795_993_200)
    for text in ["", "now", "2013-05-24", "2013-13-24T00:00:00Z", "Fri, 24 Foo 2013 00:00:00 GMT", "99999999999999"] {
      #expect(S3XML.date(text) == nil, "\(text)")
    }
  }

  @Test func listsAreReadWithoutWhatIsForeign() throws {
    let key = ObjectKey(of: Data("abc".utf8))
    func item(_ key: String, _ date: String = "2026-11-29T22:00:00.000Z", size: String = "3") -> String {
      "<Contents><Key>\(key)</Key><LastModified>\(date)</LastModified><ETag>&quot;x&quot;</ETag><Size>\(size)</Size>"
        + "<StorageClass>STANDARD</StorageClass></Contents>"
    }
    func page(_ items: String, more: Bool = false) -> ObjectPage? {
      let text = """
        <?xml version="1.0" encoding="UTF-8"?>
        <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>images</Name><Prefix>p/</Prefix>
        <IsTruncated>\(more)</IsTruncated>\(items)</ListBucketResult>
        """
      return S3XML.page(Array(text.utf8), prefix: "p/", now: Date(timeIntervalSince1970: 1_795_993_200))
    }
    #expect(page(item("p/\(key.path)")) == ObjectPage(entries: [.init(key: key, byteCount: 3, ageSeconds: 3600)]))
    #expect(page("") == ObjectPage(entries: []))
    let foreign =
      item("p/readme&amp;.txt") + item("q/\(key.path)") + item("p/\(key.path)", "yesterday")
      + item("p/\(key.path)", size: "-3") + item("p/\(key.path)", size: "many") + "<Contents></Contents><Contents>"
    #expect(page(foreign) == ObjectPage(entries: []))
    #expect(page(item("p/x&amp;y"), more: true) == ObjectPage(entries: [], next: "x&y"))
    #expect(S3XML.page(Array("<html>".utf8), prefix: "", now: Date(timeIntervalSince1970: 0)) == nil)
  }

  // MARK: Settings

  private static func problem(_ change: (inout S3Settings) -> Void) -> String? {
    var settings = S3Settings()
    settings.bucket = "images"
    change(&settings)
    do throws(ObjectError) {
      _ = try S3ObjectStore(settings, credentials: S3CredentialSource(file: nil, environment: [:]))
      return nil
    } catch { return "\(error)" }
  }

  @Test func settingsAreChecked() {
    #expect(Self.problem { _ in } == nil)
    for bucket in ["", "ab", "Images", "im_ages", "a/b", ".abc", "a..b", String(repeating: "a", count: 64)] {
      #expect(Self.problem { $0.bucket = bucket }?.contains("the bucket is \"\(bucket)\"") == true)
    }
    for prefix in ["a//b", "../x", "a b", "ü", "a/./b"] {
      #expect(Self.problem { $0.prefix = prefix }?.contains("the prefix is") == true, "\(prefix)")
    }
    #expect(Self.problem { $0.prefix = "/a/b.c_d-e/" } == nil)
    for endpoint in [
      "s3.example.org", "ftp://x", "https://", "https://user:password@x", "https://x/path", "https://x?y=z",
    ] { #expect(Self.problem { $0.endpoint = endpoint }?.contains("the endpoint is") == true, "\(endpoint)") }
    #expect(Self.problem { $0.region = "" } != nil)
    #expect(Self.problem { $0.endpoint = "http://10.0.0.1:9000" }?.contains("no TLS") == true)
    #expect(
      Self.problem {
        $0.endpoint = "http://10.0.0.1:9000"
        $0.allowsInsecure = true
      } == nil)
    for endpoint in ["http://localhost:9000", "http://127.0.0.1:9000", "http://[::1]:9000", "https://10.0.0.1:9000/"] {
      #expect(Self.problem { $0.endpoint = endpoint } == nil, "\(endpoint)")
    }
  }

  @Test func bucketsAreNamedInTheHostOrThePath() throws {
    func location(_ isPathStyle: Bool, _ endpoint: String) throws -> String {
      var settings = S3Settings()
      (settings.bucket, settings.prefix, settings.region) = ("images", "a/b", "eu-central-1")
      (settings.isPathStyle, settings.endpoint) = (isPathStyle, endpoint)
      return try S3ObjectStore(settings, credentials: S3CredentialSource(file: nil, environment: [:])).location
    }
    #expect(try location(false, "") == "s3://images/a/b/ at https://images.s3.eu-central-1.amazonaws.com")
    #expect(try location(true, "https://S3.example.org:9000") == "s3://images/a/b/ at https://s3.example.org:9000")
  }

  // MARK: Credentials

  @Test func credentialsOfTheEnvironmentAndOfFiles() throws {
    let all = ["AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"]
    let known = S3Credentials(accessKeyID: "id", secretAccessKey: "secret", sessionToken: "token")
    #expect(try S3CredentialSource(file: nil, environment: all).current() == known)
    #expect(!"\(known)".contains("secret") && !"\(known)".contains("token"))
    try withFolder { folder in
      let path = folder + "/credentials"
      let text = """
        # of the tests
        [other]
        aws_access_key_id = other
        aws_secret_access_key = other
        [default]
        aws_access_key_id=first
        aws_secret_access_key = with=equals
        """
      try text.write(toFile: path, atomically: true, encoding: .utf8)
      let source = S3CredentialSource(file: path, environment: all)
      #expect(try source.current() == S3Credentials(accessKeyID: "first", secretAccessKey: "with=equals"))
      let named = S3CredentialSource(
        file: nil, environment: ["AWS_SHARED_CREDENTIALS_FILE": path, "AWS_PROFILE": "other"])
      #expect(try named.current().accessKeyID == "other")
      try text.replacingOccurrences(of: "first", with: "second").write(toFile: path, atomically: true, encoding: .utf8)
      #expect(try source.current().accessKeyID == "second", "read again when it has changed")
      try "[default]\n".write(toFile: path, atomically: false, encoding: .utf8)
      #expect(try source.current().accessKeyID == "second", "kept while the file is being written")
      let fresh = S3CredentialSource(file: path, environment: [:])
      #expect { try fresh.current() } throws: { "\($0)".contains("\(path) has no aws_access_key_id") }
    }
    #expect { try S3CredentialSource(file: "/nowhere/x", environment: [:]).current() } throws: {
      "\($0)".contains("/nowhere/x")
    }
  }
}
