// SPDX-License-Identifier: Apache-2.0

/// Takes a credentials file apart: sections of `name = value` lines. Comments are lines that begin
/// with `#` or `;`.
enum CredentialsFile {
  /// What Penstock reads of a profile.
  enum Setting: String {
    case keyID = "aws_access_key_id"
    case secret = "aws_secret_access_key"
    case token = "aws_session_token"
    case account
    case clientAccount = "aws_account_id"
    case user
    case role
    case session
    case expires
    case policy
  }

  /// What only clients read, besides whatever begins with `aws_`.
  static let ofClients: Set<String> = [
    "region", "output", "endpoint_url", "ca_bundle", "cli_pager", "retry_mode", "max_attempts",
  ]

  struct Profile {
    var line: Int
    var settings: [Setting: (value: String, line: Int)] = [:]

    func line(of setting: Setting) -> Int { settings[setting]?.line ?? line }
  }

  static func profiles(_ text: String) throws(CredentialsError) -> [Profile] {
    var profiles: [Profile] = []
    var sections: [String: Int] = [:]
    var names: [String: Int] = [:]
    let mark = [UInt8]([0xef, 0xbb, 0xbf])
    let bytes = Array(text.utf8)
    let lines = bytes[(bytes.starts(with: mark) ? 3 : 0)...]
      .split(separator: 0x0a, omittingEmptySubsequences: false)
    for (offset, bytes) in lines.enumerated() {
      let number = offset + 1
      let line = trimmed(bytes)
      guard let first = line.first, first != UInt8(ascii: "#"), first != UInt8(ascii: ";") else {
        continue
      }
      if first == UInt8(ascii: "[") {
        let name = try section(line, number)
        if let earlier = sections.updateValue(number, forKey: name) {
          throw CredentialsError(
            number, "the profile has the name of that on line \(earlier). Give it another.")
        }
        names = [:]
        profiles.append(Profile(line: number))
        continue
      }
      guard let equals = line.firstIndex(of: UInt8(ascii: "=")) else {
        throw CredentialsError(
          number, "a line is [profile], name = value or a comment that begins with #.")
      }
      guard !profiles.isEmpty else {
        throw CredentialsError(
          number, "a setting stands before the first profile. Begin with a line like [default].")
      }
      let written = String(decoding: trimmed(line[..<equals]), as: UTF8.self)
      let name = written.lowercased()
      let value = String(decoding: trimmed(line[(equals + 1)...]), as: UTF8.self)
      if let earlier = names.updateValue(number, forKey: name) {
        throw CredentialsError(
          number, "the setting was given on line \(earlier) already. Remove one of the two.")
      }
      if let setting = Setting(rawValue: name) {
        profiles[profiles.count - 1].settings[setting] = (value, number)
      } else if !name.hasPrefix("aws_"), !ofClients.contains(name) {
        throw CredentialsError(
          number,
          "unknown setting\(shown(written)). Known are account, user, role, session, expires and "
            + "policy, and those of AWS clients.")
      }
    }
    return profiles
  }

  private static func section(
    _ line: ArraySlice<UInt8>, _ number: Int
  ) throws(CredentialsError) -> String {
    if let end = line.firstIndex(of: UInt8(ascii: "]")) {
      let name = trimmed(line[(line.startIndex + 1)..<end])
      let rest = trimmed(line[(end + 1)...]).first
      if !name.isEmpty, rest == nil || rest == UInt8(ascii: "#") || rest == UInt8(ascii: ";") {
        return String(decoding: name, as: UTF8.self)
      }
    }
    throw CredentialsError(number, "a profile begins with a line like [default].")
  }

  /// The name when it is hardly part of a secret that was broken over two lines: those have
  /// capitals and digits.
  private static func shown(_ name: String) -> String {
    let isWord = name.utf8.allSatisfy { byte in
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || byte == UInt8(ascii: "_")
    }
    return isWord && name.utf8.count <= 24 ? " \(name)" : ""
  }

  private static func trimmed(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 || byte == 0x0d }
    var rest = bytes.drop(while: isBlank)
    while let last = rest.last, isBlank(last) { rest = rest.dropLast() }
    return rest
  }
}

extension CredentialsFile.Profile {
  func credential(
    partition: String, defaultAccount: String
  ) throws(CredentialsError) -> Credential {
    guard let keyID = settings[.keyID], let secret = settings[.secret] else {
      let missing: CredentialsFile.Setting = settings[.keyID] == nil ? .keyID : .secret
      throw CredentialsError(line, "the profile has no \(missing.rawValue). Add it.")
    }
    let isID = keyID.value.utf8.allSatisfy { Alphabet.isNameByte($0) || $0 == UInt8(ascii: ".") }
    guard isID, (1...128).contains(keyID.value.utf8.count) else {
      throw CredentialsError(
        keyID.line, "a key id is 1 to 128 letters, digits, hyphens, dots and underscores.")
    }
    try checkSecret(.secret)
    try checkSecret(.token)
    return Credential(
      keyID: keyID.value, secret: secret.value, sessionToken: settings[.token]?.value,
      expiresAt: try expiry(),
      principal: try principal(partition: partition, defaultAccount: defaultAccount),
      policy: try policy())
  }

  /// Blanks would be those of a comment that was taken for part of the value.
  private func checkSecret(_ setting: CredentialsFile.Setting) throws(CredentialsError) {
    guard let (value, line) = settings[setting] else { return }
    guard !value.isEmpty else {
      throw CredentialsError(line, "\(setting.rawValue) is empty. Give it a value.")
    }
    guard value.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
      throw CredentialsError(
        line, "\(setting.rawValue) is ASCII without blanks. Put comments on lines of their own.")
    }
  }

  private func principal(
    partition: String, defaultAccount: String
  ) throws(CredentialsError) -> Principal {
    let account = try self.account() ?? defaultAccount
    let user = try name(.user)
    let role = try name(.role)
    let session = try name(.session)
    switch (user, role, session) {
    case (nil, nil, nil): return .root(of: account, partition: partition)
    case (let user?, nil, nil): return .user(user, of: account, partition: partition)
    case (nil, let role?, let session?):
      return .session(session, role: role, of: account, partition: partition)
    case (.some, _, _):
      throw CredentialsError(
        line(of: .user), "a profile is of a user or of a role. Remove user, or role and session.")
    case (_, nil, _): throw CredentialsError(line(of: .session), "a session needs a role. Add it.")
    default: throw CredentialsError(line(of: .role), "a role needs a session. Add it.")
    }
  }

  private func account() throws(CredentialsError) -> String? {
    var found: String?
    for setting in [CredentialsFile.Setting.account, .clientAccount] {
      guard let (value, line) = settings[setting] else { continue }
      let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
      guard value.utf8.count == 12, value.utf8.allSatisfy(digits.contains) else {
        throw CredentialsError(line, "\(setting.rawValue) is 12 digits.")
      }
      guard found == nil || found == value else {
        throw CredentialsError(line, "account and aws_account_id differ. Remove one of them.")
      }
      found = value
    }
    return found
  }

  private func name(_ setting: CredentialsFile.Setting) throws(CredentialsError) -> String? {
    guard let (value, line) = settings[setting] else { return nil }
    let isName = value.utf8.allSatisfy { Alphabet.isNameByte($0) || "+=,.@".utf8.contains($0) }
    guard isName, (1...64).contains(value.utf8.count) else {
      throw CredentialsError(
        line, "\(setting.rawValue) is 1 to 64 letters, digits and characters of _+=,.@-")
    }
    return value
  }

  private func expiry() throws(CredentialsError) -> Int64? {
    guard let (value, line) = settings[.expires] else { return nil }
    guard settings[.token] != nil else {
      throw CredentialsError(
        line, "only a key with aws_session_token expires. Add the token or remove expires.")
    }
    guard let time = SigningTime(extended: value) else {
      throw CredentialsError(line, "expires is a time in UTC like 2030-01-31T12:00:00Z.")
    }
    return time.seconds
  }

  private func policy() throws(CredentialsError) -> AccessPolicy? {
    guard let (value, line) = settings[.policy] else { return nil }
    do throws(PolicyError) {
      return try AccessPolicy(value, .identity)
    } catch {
      throw CredentialsError(
        line, "the policy is not one line of JSON, or no policy: \(error.message).")
    }
  }
}
