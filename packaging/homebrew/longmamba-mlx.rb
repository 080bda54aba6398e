# For a tap: copy to Formula/longmamba-mlx.rb. `url` and `sha256` are those of the sdist on PyPI; `brew bump-formula-pr`
# sets them. MLX publishes wheels alone, so the formula installs from wheels into a virtual environment of its own.
class LongmambaMlx < Formula
  include Language::Python::Virtualenv

  desc "Read a whole book once in constant memory and ask it questions"
  homepage "https://pypi.org/project/longmamba-mlx/"
  url "https://files.pythonhosted.org/packages/source/l/longmamba-mlx/longmamba_mlx-0.2.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "MIT"

  depends_on arch: :arm64
  depends_on :macos
  depends_on "python@3.12"

  def install
    virtualenv_create(libexec, "python3.12")
    system libexec/"bin/python", "-m", "ensurepip"
    system libexec/"bin/python", "-m", "pip", "install", "#{buildpath}[mcp,serve]"
    bin.install_symlink libexec/"bin/longmamba-mlx"
  end

  test do
    ENV["LONGMAMBA_HOME"] = testpath
    assert_match version.to_s, shell_output("#{bin}/longmamba-mlx --version")
    assert_match "access code", shell_output("#{bin}/longmamba-mlx demo")
  end
end
