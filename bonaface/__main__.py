from bonaface.cli.main import main

main()
