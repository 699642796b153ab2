// SPDX-License-Identifier: Apache-2.0
import FuzzSupport
import Penstock
import PenstockSQS

/// What decides who may do what, and what is sealed: policies, credentials, signatures, key rings.
///
/// In texts `$S`, `$P` and `$K` stand for a secret, its end, and a key of a ring. None of them may
/// come back in words.
enum Access {
  static let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
  /// What a secret that was broken over two lines leaves on the second.
  static let secretEnd = "bPxRfiCYEXAMPLEKEY"
  static let masterKey = "AQgPFh0kKzI5QEdOVVxjanF4f4aNlJuiqbC3vsXM09o="

  static func run(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    var input = Input(data, size)
    switch input.below(8) {
    case 0: policy(text(input.rest()), .queue)
    case 1: policy(text(input.rest()), .identity)
    case 2: credentials(text(input.rest()))
    case 3: Signatures.anyRequest(&input)
    case 4: Signatures.changedRequest(&input)
    case 5: keyRing(text(input.rest()))
    case 6: envelope(&input)
    default: permissions(&input)
    }
    return 0
  }

  static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

  private static func filledIn(_ text: String, _ values: [String: String]) -> String {
    var parts = text.split(separator: "$", omittingEmptySubsequences: false)
    for place in parts.indices.dropFirst() {
      if let value = values[String(parts[place].prefix(1))] {
        parts[place] = value + parts[place].dropFirst()
      } else {
        parts[place] = "$" + parts[place]
      }
    }
    return parts.joined()
  }

  // MARK: Policies

  private static let queue = "arn:aws:sqs:us-east-1:123456789012:demo"

  private static func request(
    _ principal: Principal, _ action: String, _ context: AccessContext
  ) -> AccessRequest {
    AccessRequest(
      principal: principal, action: action, resource: queue, owner: "123456789012",
      context: context)
  }

  /// One of each kind of principal; with much that a condition may ask for, and with nothing.
  private static let requests: [AccessRequest] = {
    var context = AccessContext(
      time: 1_777_863_721_000, sourceIP: "2001:db8::7", isSecure: true)
    context.userAgent = "Boto3/1.42 *?${aws:PrincipalArn}"
    context.sourceARN = "arn:aws:sns:us-east-1:210987654321:t"
    context.sourceAccount = "210987654321"
    context.principalTags = [("Team", "a"), ("*", "?")]
    context.requestTags = [("Stage", "é")]
    context.tagKeys = ["Stage", "\u{0}"]
    let bare = AccessContext(time: .min)
    let user = Principal(
      kind: .user, account: "210987654321", arn: "arn:aws:iam::210987654321:user/bob", id: "b")
    let role = "arn:aws:iam::123456789012:role/r"
    let session = Principal(
      kind: .session(roleARN: role), account: "123456789012",
      arn: "arn:aws:sts::123456789012:assumed-role/r/s", id: "r:s")
    return [
      request(.root(of: "123456789012"), "SetQueueAttributes", context),
      request(.root(of: "210987654321"), "SendMessage", context),
      request(user, "ReceiveMessage", bare),
      request(session, "ListQueues", context),
      request(.anonymous, "SendMessage", bare),
      request(.service("sns.amazonaws.com"), "SendMessage", context),
    ]
  }()

  private static func decisions(
    _ queue: AccessPolicy?, _ identity: AccessPolicy?
  ) -> [AccessDecision] {
    requests.map { request in
      let decision = AccessDecision.decide(
        request, queuePolicy: queue, identityPolicy: identity)
      check(
        (decision == .allowed) == (decision.refusal(for: request) == nil),
        "a decision and its answer differ")
      return decision
    }
  }

  private static func read(_ text: String, _ kind: AccessPolicy.Kind) -> AccessPolicy? {
    do throws(PolicyError) {
      return try AccessPolicy(text, kind)
    } catch { return nil }
  }

  /// What is kept of a policy is the same policy.
  private static func policy(_ text: String, _ kind: AccessPolicy.Kind) {
    guard let policy = read(text, kind) else { return }
    check(policy.text.utf8.count <= text.utf8.count, "a policy grows when it is kept")
    guard let again = read(policy.text, kind) else {
      return check(false, "the policy that is kept is refused: \(policy.text)")
    }
    check(again.text.utf8.elementsEqual(policy.text.utf8), "a policy changes when it is kept")
    if kind == .queue {
      check(decisions(policy, nil) == decisions(again, nil), "a kept policy decides otherwise")
    } else {
      check(decisions(nil, policy) == decisions(nil, again), "a kept policy decides otherwise")
    }
  }

  /// A statement for an account concerns that account alone, and taking it away leaves what was.
  private static func permissions(_ input: inout Input) {
    let choice = input.byte()
    let label = choice & 1 == 0 ? "fuzz" : text(input.take(input.below(90)))
    let account = choice & 2 == 0 ? "111122223333" : text(input.take(input.below(16)))
    let actions = ["SendMessage", "*", "SetQueueAttributes"]
    let action = choice & 4 == 0 ? actions[input.below(3)] : text(input.take(input.below(16)))
    let before = text(input.rest())
    guard let policy = add(label, account, action, before) else { return remove(label, before) }
    guard let kept = read(policy, .queue), kept.text.utf8.elementsEqual(policy.utf8) else {
      return check(false, "the policy of an editor is not one that is kept: \(policy)")
    }
    check(add(label, account, action, policy) == nil, "a label is there twice")
    let old = before.isEmpty ? nil : read(before, .queue)
    check(decisions(old, nil) == decisions(kept, nil), "a permission of one account is another's")
    let owner = Principal.root(of: account)
    let granted = request(owner, "SendMessage", AccessContext(time: 0))
    if action == "SendMessage",
      AccessDecision.decide(granted, queuePolicy: kept, identityPolicy: nil) == .denied
    {
      check(false, "a permission was added and allows nothing")
    }
    let after = removed(label, policy)
    check((after == nil) == before.isEmpty, "a removal takes all, or leaves what it made")
    guard let after, let rest = read(after, .queue) else { return }
    check(decisions(old, nil) == decisions(rest, nil), "a removal changes the other statements")
    check(
      add(label, account, action, after)?.utf8.elementsEqual(policy.utf8) == true,
      "adding again gives another policy")
  }

  private static func add(
    _ label: String, _ account: String, _ action: String, _ policy: String
  ) -> String? {
    do throws(WireRefusal) {
      return try PermissionEditing.add(
        label: label, accounts: [account], actions: [action], queueARN: queue, to: policy)
    } catch {
      check((400..<500).contains(error.status), "status \(error.status) of an editor")
      return nil
    }
  }

  private static func removed(_ label: String, _ policy: String) -> String? {
    do throws(WireRefusal) {
      return try PermissionEditing.remove(label: label, from: policy)
    } catch {
      check(false, "what was added cannot be removed: \(error.message)")
      return nil
    }
  }

  private static func remove(_ label: String, _ policy: String) {
    do throws(WireRefusal) {
      guard let rest = try PermissionEditing.remove(label: label, from: policy) else { return }
      check(read(rest, .queue)?.text == rest, "what a removal leaves is no policy: \(rest)")
    } catch {
      check((400..<500).contains(error.status), "status \(error.status) of an editor")
    }
  }

  // MARK: Credentials

  private static func credentials(_ text: String) {
    let lines = filledIn(text, ["S": secret, "P": secretEnd])
    do throws(CredentialsError) {
      let credentials = try Credentials(
        parsing: lines, partition: "aws", defaultAccount: "123456789012")
      check(credentials.count > 0, "no key is taken for keys")
      for account in credentials.accounts {
        check(SQSConfiguration.isAccountID(account), "an account \(account)")
      }
    } catch {
      // A policy is no secret: its error tells what is wrong with it.
      let isOfPolicy = error.description.contains(": the policy is ")
      let words = error.description.lowercased()
      check(
        isOfPolicy || !words.contains(secretEnd.lowercased()), "a secret in \(error.description)")
    }
  }

  // MARK: Key rings

  private static func keyRing(_ text: String) {
    let lines = filledIn(text, ["K": masterKey])
    do throws(KeyRingError) {
      let ring = try KeyRing(parsing: lines)
      do throws(KeyRingError) {
        try ring.replace(parsing: lines)
      } catch { check(false, "a ring cannot take its own place: \(error)") }
    } catch {
      // Who gives a key where its name belongs is told the name.
      let isName = lines.split(whereSeparator: \.isNewline).contains { line in
        line.drop(while: \.isWhitespace).hasPrefix(masterKey)
      }
      check(isName || !error.description.contains(masterKey), "a key in \(error)")
    }
  }

  /// Two versions of `k`. The second has sealed what follows, made by other code than ours.
  private static let ring = """
    k 1 CRAXHiUsMzpBSE9WXWRrcnmAh46VnKOqsbi/xs3U2+I=
    k 2 \(masterKey)
    """
  private static let plain = Array("what nobody may change".utf8)
  private static let sealed =
    Base64.decode(
      Array(
        ("AQFrAgAAAHyzcKIoNuOzAAECAwQFBgcICQoLu8+yX5Aeh44/7x+Vj/oJOz97x5qp30Ejm3JT+L2j86ruD/p22LfB"
          + "yewlyoVoU8uwMjM0NTY3ODk6Ozw90vYd6B1ZLNHoSA4WWgvRQ7yNIYKeGLrdFHAJF/2+GlwuRTrtP68=").utf8
      ))
    ?? []

  private static func envelope(_ input: inout Input) {
    let ring: KeyRing
    do throws(KeyRingError) {
      ring = try KeyRing(parsing: Self.ring)
    } catch { return check(false, "the ring to fuzz is refused: \(error)") }
    // A data key that is known already takes another way.
    if input.byte() & 1 == 0 {
      check(open(sealed, ring) == plain, "an envelope does not open")
    }
    var bytes = sealed
    while !input.isEmpty { change(&bytes, &input) }
    guard let opened = open(bytes, ring) else {
      return check(bytes != sealed, "an envelope does not open")
    }
    check(bytes == sealed && opened == plain, "a changed envelope opens")
  }

  /// One edit: a byte, a cut, a piece that comes in.
  static func change(_ bytes: inout [UInt8], _ input: inout Input) {
    let order = input.byte()
    let place = bytes.isEmpty ? 0 : Int(input.number(bytes: 2)) % bytes.count
    switch order % 4 {
    case 0 where !bytes.isEmpty: bytes[place] ^= input.byte()
    case 1: bytes.replaceSubrange(place..<min(bytes.count, place + Int(order / 4)), with: [])
    case 2: bytes.insert(contentsOf: input.take(Int(order / 4)), at: place)
    default: bytes.append(contentsOf: input.take(1 + Int(order / 4)))
    }
  }

  private static func open(_ bytes: [UInt8], _ ring: KeyRing) -> [UInt8]? {
    do throws(PenstockError) {
      return try ring.open(bytes, key: "k")
    } catch {
      check(error.code == .keyMismatch || error.code == .keyNotFound, "\(error.code) for bytes")
      return nil
    }
  }
}
