// SPDX-License-Identifier: Apache-2.0
import PenstockSQS
import Testing

private let key = "aws_access_key_id=AK\naws_secret_access_key=topsecret"

private func parse(
  _ text: String, partition: String = "aws", account: String = "000000000000"
) throws(CredentialsError) -> Credentials {
  try Credentials(parsing: text, partition: partition, defaultAccount: account)
}

@Suite struct CredentialFiles {
  @Test func theWholeFormat() throws {
    let credentials = try parse(
      "\u{feff}# A comment\r\n; another\r\n\r\n[default]\r\n"
        + "aws_access_key_id = AK1\r\naws_secret_access_key = a/b+c=d#e;\r\nregion = us-east-1\r\n"
          + """
          [ alice ]  # ours
            AWS_ACCESS_KEY_ID=AK2
          \taws_secret_access_key\t=\ts2
            account = 111122223333
            user = alice
            policy = {"Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}]}
            # a comment of a profile
            output=json
            endpoint_url = http://localhost:9324
            aws_something_else = 1
          [worker]
          aws_access_key_id = AK3
          aws_secret_access_key = s3
          aws_session_token = t3==
          aws_account_id = 111122223333
          role = worker
          session = host-1@example
          expires = 2030-01-31T12:00:00Z
          """)
    #expect(credentials.count == 3)
    #expect(credentials.accounts == ["000000000000", "111122223333"])
    #expect(credentials["AK4"] == nil)
    let root = try #require(credentials["AK1"])
    #expect(root.secret == "a/b+c=d#e;")
    #expect(root.arn == "arn:aws:iam::000000000000:root")
    #expect(root.senderID == "000000000000")
    #expect(root.sessionToken == nil && root.expiresAt == nil && root.policyText == nil)
    let alice = try #require(credentials["AK2"])
    #expect(alice.secret == "s2")
    #expect(alice.account == "111122223333")
    #expect(alice.arn == "arn:aws:iam::111122223333:user/alice")
    #expect(alice.policyText?.hasPrefix("{\"Statement\"") == true)
    #expect(alice.policyText?.hasSuffix("]}") == true)
    #expect(alice.roleARN == nil)
    let worker = try #require(credentials["AK3"])
    #expect(worker.arn == "arn:aws:sts::111122223333:assumed-role/worker/host-1@example")
    #expect(worker.roleARN == "arn:aws:iam::111122223333:role/worker")
    #expect(worker.sessionToken == "t3==")
    #expect(worker.expiresAt == 1_896_091_200)
  }

  /// Messages on disk hold them.
  @Test func senderIDsAreStable() throws {
    func id(_ more: String, _ partition: String = "aws") throws -> String {
      try #require(try parse("[a]\n\(key)\n\(more)", partition: partition)["AK"]).senderID
    }
    let alice = try id("user=alice")
    #expect(alice == "AIDAGCV2FBKW6JTGMZOFO")
    #expect(try id("user=alice") == alice)
    #expect(try id("user=bob") != alice)
    #expect(try id("user=alice\naccount=111122223333") != alice)
    #expect(try id("user=alice", "aws-cn") != alice)
    let session = try id("role=r\nsession=s")
    #expect(session == "AROA2PCOY2HSXQY4QJ4DS:s")
    #expect(try id("role=r\nsession=other") == session.dropLast() + "other")
  }

  @Test(
    arguments: [
      ("", nil, "holds no profile"), ("# nothing\n\n", nil, "holds no profile"),
      ("a = b", 1, "before the first profile"), ("[default]", 1, "no aws_access_key_id"),
      ("\n[a]\naws_access_key_id=AK", 2, "no aws_secret_access_key"),
      ("[a]\naws_secret_access_key=topsecret", 1, "no aws_access_key_id"),
      ("[a]\naws_access_key_id=AK\naws_secret_access_key=", 3, "is empty"),
      ("[a]\n\(key)\naws_session_token = ", 4, "aws_session_token is empty"),
      ("[a]\n\(key)\n[b]\n\(key)", 5, "that of line 2"),
      ("[a]\n\(key)\n[a]\n\(key)", 4, "on line 1"),
      ("[a]\n\(key)\naws_access_key_id=B", 4, "on line 2"), ("[a", 1, "like [default]"),
      ("[]\n", 1, "like [default]"), ("[a] b\n", 1, "like [default]"),
      ("[a]\ntopsecret", 2, "name = value"), ("[a]\n\(key)\nusr = x", 4, "unknown setting usr"),
      ("[a]\n\(key)\naccount = 12345678901", 4, "12 digits"),
      ("[a]\n\(key)\naccount = 12345678901x", 4, "12 digits"),
      ("[a]\n\(key)\naccount=111111111111\naws_account_id=222222222222", 5, "differ"),
      ("[a]\n\(key)\nuser=", 4, "1 to 64"), ("[a]\n\(key)\nuser=a/b", 4, "1 to 64"),
      ("[a]\n\(key)\nuser=\(String(repeating: "a", count: 65))", 4, "1 to 64"),
      ("[a]\n\(key)\nuser=a\nrole=b\nsession=c", 4, "user or of a role"),
      ("[a]\n\(key)\nuser=a\nsession=c", 4, "user or of a role"),
      ("[a]\n\(key)\nrole=b", 4, "needs a session"),
      ("[a]\n\(key)\nsession=b", 4, "needs a role"),
      ("[a]\n\(key)\nexpires=2030-01-31T12:00:00Z", 4, "aws_session_token"),
      ("[a]\n\(key)\naws_session_token=t\nexpires=2030-01-31", 5, "2030-01-31T12:00:00Z"),
      ("[a]\n\(key)\npolicy={", 4, "not JSON"), ("[a]\n\(key)\npolicy=[]", 4, "an object"),
      ("[a]\n\(key)\npolicy=", 4, "not JSON"),
      ("[a]\naws_access_key_id=A/K\naws_secret_access_key=topsecret", 2, "1 to 128"),
      ("[a]\naws_access_key_id=\naws_secret_access_key=topsecret", 2, "1 to 128"),
      ("[a]\naws_access_key_id=AK # mine\naws_secret_access_key=topsecret", 2, "1 to 128"),
      ("[a]\naws_access_key_id=AK\naws_secret_access_key=topsecret # mine", 3, "without blanks"),
      (
        "[a]\naws_access_key_id=AK\naws_secret_access_key=\n topsecret=", 4, "unknown setting topse"
      ),
      ("[a]\naws_access_key_id=AK\naws_secret_access_key=x\n Top/Secret1=", 4, "unknown setting."),
      ("[a]\naws_access_key_id=AK\naws_secret_access_key=x\n TopSecret=", 4, "unknown setting."),
    ] as [(String, Int?, String)])
  func whatIsWrongIsNamed(_ text: String, _ line: Int?, _ part: String) {
    let error = #expect(throws: CredentialsError.self) { try parse(text) }
    #expect(error?.line == line)
    #expect(error?.message.contains(part) == true, "\(error?.message ?? "")")
    #expect(line == nil || error?.description.hasPrefix("line \(line ?? 0): ") == true)
    #expect(error?.description.contains("op/secret") == false)
  }

  @Test func nothingShowsASecret() throws {
    let credentials = try parse(
      "[a]\naws_access_key_id=AK\naws_secret_access_key=topsecret\naws_session_token=hidden")
    let credential = try #require(credentials["AK"])
    var dumped = ""
    dump(credential, to: &dumped)
    dump(credentials, to: &dumped)
    dump([credential], to: &dumped)
    let store = try CredentialStore(
      parsing: "[a]\n\(key)\naws_session_token=hidden", region: "us-east-1",
      account: "000000000000")
    dump(store, to: &dumped)
    for text in [
      "\(credential)", String(reflecting: credential), "\(credentials)", "\([credential])",
      String(reflecting: store), "\(Optional(credential) as Any)", dumped,
    ] {
      #expect(!text.contains("topsecret") && !text.contains("hidden"), "\(text)")
    }
    #expect("\(credential)" == "AK of arn:aws:iam::000000000000:root")
  }
}

@Suite struct CredentialStores {
  private func text(_ secret: String, id: String = "AKIDEXAMPLE") -> String {
    "[a]\naws_access_key_id = \(id)\naws_secret_access_key = \(secret)\nuser = u"
  }

  private func check(
    _ store: CredentialStore, _ secret: String, id: String = "AKIDEXAMPLE"
  ) -> SignatureVerdict {
    SignatureVerdict(
      TestSigner(keyID: id, secret: secret).signed(), with: store, nowSeconds: signingNow)
  }

  @Test func keysAreReplacedAtOnce() throws {
    let store = try CredentialStore(
      parsing: text("one"), region: "us-east-1", account: "111122223333")
    #expect(store.count == 1)
    #expect(store.accounts == ["111122223333"])
    #expect(check(store, "one") == .known)
    try store.replace(parsing: text("two"))
    #expect(check(store, "one") == .wrongSignature)
    #expect(check(store, "two") == .known)
    try store.replace(parsing: text("two", id: "AKIDNEW"))
    #expect(check(store, "two") == .unknownKey)
    #expect(check(store, "two", id: "AKIDNEW") == .signed(keyID: "AKIDNEW"))
  }

  @Test func aBadTextLeavesTheOldKeys() throws {
    let store = try CredentialStore(
      parsing: text("one"), region: "us-east-1", account: "111122223333")
    #expect(throws: CredentialsError.self) { try store.replace(parsing: text("")) }
    #expect(throws: CredentialsError.self) { try store.replace(parsing: "") }
    #expect(check(store, "one") == .known)
  }

  @Test(arguments: [
    ("eu-west-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"),
  ])
  func theRegionDecidesThePartition(_ region: String, _ partition: String) throws {
    let store = try CredentialStore(parsing: text("one"), region: region, account: "111122223333")
    #expect(
      store.credential("AKIDEXAMPLE")?.arn == "arn:\(partition):iam::111122223333:user/u")
  }

  @Test func signingKeysAreKeptAndBounded() throws {
    let store = try CredentialStore(
      parsing: text("one"), region: "us-east-1", account: "111122223333")
    #expect(check(store, "wrong") == .wrongSignature)
    #expect(store.signingKeyCount == 1)
    #expect(check(store, "one") == .known)
    #expect(check(store, "one") == .known)
    #expect(store.signingKeyCount == 1)
    try store.replace(parsing: text("two"))
    #expect(store.signingKeyCount == 0)
    for day in 0..<Int64(CredentialStore.maximumSigningKeys + 10) {
      let now = signingNow + day * 86_400
      let signer = TestSigner(secret: "two", date: SigningTime(seconds: now).basic)
      #expect(SignatureVerdict(signer.signed(), with: store, nowSeconds: now) == .known)
    }
    #expect(store.signingKeyCount == 10)
  }

  /// Nothing that fails before the signature leaves a key behind.
  @Test func strangersFillNothing() throws {
    let store = try signingStore()
    _ = check(store, "x", id: "AKIDOTHER")
    _ = SignatureVerdict(
      TestSigner(date: "20250115T120000Z").signed(), with: store, nowSeconds: signingNow)
    _ = SignatureVerdict(
      TestSigner(region: "mars").signed(), with: store, nowSeconds: signingNow)
    #expect(store.signingKeyCount == 0)
  }

  @Test func readersAndReplacementsMeet() async throws {
    let store = try CredentialStore(
      parsing: text("one"), region: "us-east-1", account: "111122223333")
    let one = text("one")
    let two = text("two")
    let request = TestSigner(secret: "one").signed()
    await withTaskGroup(of: Void.self) { group in
      group.addTask {
        for round in 0..<200 {
          do throws(CredentialsError) {
            try store.replace(parsing: round % 2 == 0 ? two : one)
          } catch {
            Issue.record("\(error)")
          }
        }
      }
      for _ in 0..<2 {
        group.addTask {
          for _ in 0..<200 {
            let verdict = SignatureVerdict(request, with: store, nowSeconds: signingNow)
            if verdict != .known && verdict != .wrongSignature { Issue.record("\(verdict)") }
          }
        }
      }
    }
    #expect(check(store, "one") == .known)
    #expect(check(store, "two") == .wrongSignature)
  }
}
